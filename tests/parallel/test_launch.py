"""`trainer.devices=2` on the command line: processes are started, and do the run of one."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.dist

REPOSITORY = Path(__file__).resolve().parents[2]
SHORT = (
    "training.num_rollouts=2",
    "training.prompts_per_rollout=4",
    "training.prompts_per_minibatch=4",
    "training.prompts_per_microbatch=1",
    "rollout.num_responses=2",
    "evaluation.num_problems=2",
    "evaluation.num_responses=1",
    "callbacks.checkpoint.every_rollouts=1",
    "safeguard=off",
)


def start(python, *arguments):
    return subprocess.Popen(
        [python, "train.py", *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process, code):
    out, err = process.communicate(timeout=200)
    assert process.returncode == code, err
    return out, err


def texts(folder):
    lines = (folder / "rollouts.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["response"] for line in lines]


def numbers(folder):
    lines = (folder / "metrics.csv").read_text("utf-8").splitlines()
    # Gradients of terms are those of the first prompts of rank 0, other prompts with more ranks.
    return [
        [float(cell) for name, cell in row.items() if not name.startswith("gradient/")]
        for row in csv.DictReader(lines)
    ]


def test_two_processes_do_the_run_of_one_and_one_goes_on_with_it(tmp_path, forked_python):
    alone = start(forked_python, *SHORT, f"run_dir={tmp_path / 'alone'}")
    out, _ = finished(
        start(forked_python, *SHORT, "trainer.devices=2", f"run_dir={tmp_path / 'both'}"), 0
    )
    finished(alone, 0)
    assert out.count("rollout 2/2") == 1
    assert out.count("Everything is in") == 1
    assert texts(tmp_path / "both") == texts(tmp_path / "alone")
    for mine, theirs in zip(numbers(tmp_path / "both"), numbers(tmp_path / "alone"), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-5)
    assert json.loads((tmp_path / "both" / "result.json").read_text())["status"] == "finished"
    more = (
        f"run_dir={tmp_path / 'both'}",
        *("resume=true", "training.num_rollouts=3", "trainer.devices=1"),
    )
    finished(start(forked_python, *more), 0)
    assert len(numbers(tmp_path / "both")) == 3


def test_a_warning_to_the_command_stops_all_processes_after_a_saved_rollout(
    tmp_path, forked_python
):
    many = (*SHORT, "training.num_rollouts=500", "trainer.devices=2")
    process = start(forked_python, *many, f"run_dir={tmp_path}")
    for _ in range(600):
        if (tmp_path / "checkpoints" / "rollout_000001.ckpt").exists():
            break
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGUSR1)
    _, err = finished(process, 128 + signal.SIGUSR1)
    assert len(err.splitlines()) == 1
    assert err.startswith(f"interrupted by SIGUSR1: {tmp_path} is saved up to rollout_")
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "interrupted"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["trainer.devices=0"], "trainer.devices is a whole number of at least 1; got 0"),
        (["trainer.devices=17"], "got 17 processes"),
        (["trainer=replicas", "trainer.num_nodes=2"], "torchrun --nnodes=2"),
        (["trainer=gpu", "trainer.devices=2"], "no GPU here"),
    ],
)
def test_impossible_numbers_of_processes_are_refused_before_any_is_started(
    settings, says, tmp_path, capfd, monkeypatch
):
    from papo.commands import front_door, train

    monkeypatch.setattr(front_door, "_failures", [])
    monkeypatch.setattr(sys, "argv", ["train.py", *settings, f"run_dir={tmp_path / 'run'}"])
    assert front_door.command(train.main, on_ranks=True) == 1
    err = capfd.readouterr().err
    assert says in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "run" / "run.json").exists()
