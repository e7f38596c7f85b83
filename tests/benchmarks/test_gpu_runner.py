"""A plan's cells are asked in order, and one that is lost costs itself alone."""

import json
import sys
import time

import pytest

from benchmarks.gpu.runner import Budget, Plan

WORKER = """
import os, sys, time
from benchmarks.gpu.worker import own_stdout, serve

answers = own_stdout()
print("chatter", flush=True)

class Setting:
    lost = False
    def tidy(self):
        if self.lost:
            raise RuntimeError("the device is lost")

def good(setting):
    yield {"seconds": 0.123456789}

def fails(setting):
    yield {"first": 1}
    raise ValueError("no such shape\\nand more")

def slow(setting):
    yield {"before": 1}
    time.sleep(60)

def dies(setting):
    os._exit(3)
    yield

def loses(setting):
    setting.lost = True
    raise RuntimeError("an illegal access")
    yield

serve({n: globals()[n.split("-")[0]] for n in sys.argv[1:]}, sys.argv[1:], Setting(), answers)
"""


@pytest.fixture
def ask(tmp_path, monkeypatch, repository):
    monkeypatch.setenv("PYTHONPATH", str(repository))

    def asked(*cells, seconds=120.0, budget=20.0, start=60.0, worker=WORKER):
        answers = tmp_path / "answers.jsonl"
        Plan(
            budgets=[Budget(cell=cell, seconds=budget) for cell in cells],
            command=lambda names: [sys.executable, "-c", worker, *names],
            answers=answers,
            seconds=seconds,
            start_seconds=start,
        ).run(commit="abc")
        lines = [json.loads(line) for line in answers.read_text().splitlines()]
        assert lines[0] == {"cell": "about", "commit": "abc"}
        return [line for line in lines[1:] if "event" not in line]

    return asked


def test_each_answer_is_a_line_with_its_cell(ask):
    assert ask("good", "good-2") == [
        {"cell": "good", "seconds": 0.123457},
        {"cell": "good-2", "seconds": 0.123457},
    ]


@pytest.mark.parametrize(
    ("lost", "before", "reason"),
    [
        ("fails", {"first": 1}, "ValueError: no such shape"),
        ("slow", {"before": 1}, "out of its time"),
        ("dies", None, "its process ended"),
        ("loses", None, "RuntimeError: an illegal access"),
    ],
)
def test_a_cell_that_is_lost_costs_itself(ask, lost, before, reason):
    lines = ask("good", lost, "good-2", "good-3", budget=5.0 if lost == "slow" else 60.0)
    found = [(line["cell"], "failed" in line) for line in lines if line["cell"] != lost]
    assert found == [("good", False), ("good-2", False), ("good-3", False)]
    own = [line for line in lines if line["cell"] == lost]
    if before:
        assert own[0] == {"cell": lost, **before}
    assert own[-1]["failed"].startswith(reason)


def test_when_the_time_is_over_the_rest_is_said_not_to_be_asked(ask):
    lines = ask("good", "slow", "good-2", seconds=5.0, budget=30.0)
    assert lines[0]["cell"] == "good"
    assert [(line["cell"], line["failed"]) for line in lines if "failed" in line] == [
        ("slow", "out of its time"),
        ("good-2", "not asked: time"),
    ]


def test_a_worker_that_never_starts_costs_a_cell_each_time(ask):
    lines = ask("good", "good-2", start=0.3, worker="import time; time.sleep(60)")
    assert [line["failed"] for line in lines] == ["the worker did not start"] * 2


def test_what_a_worker_has_started_ends_with_it(ask, tmp_path):
    child = tmp_path / "child"
    starts = WORKER.replace(
        "def slow(setting):",
        "def slow(setting):\n"
        "    import subprocess\n"
        f"    subprocess.Popen(['sh', '-c', 'sleep 5; touch {child}'])",
    )
    lines = ask("slow", budget=2.0, worker=starts)
    assert lines[-1]["failed"] == "out of its time"
    time.sleep(4.0)
    assert not child.exists()
