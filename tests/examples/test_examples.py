"""Every example of code of one's own is small and takes part in a run that the command line starts."""

import csv
import json
import re
import sys
from pathlib import Path

import pytest
from evaluation.evaluation_command import SHORT as SHORT_EVALUATION
from evaluation.evaluation_command import run_evaluation
from methods.test_sizes_and_passes import code_lines
from training.command import SHORT, run_command

from papo.commands.constructors import allow_packages

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PARTS = sorted(file.stem for file in (EXAMPLES / "own_parts").glob("[a-z]*.py"))
ALLOWED = ("--config-dir", str(EXAMPLES / "conf"), "allow=[own_parts]")
CHOICES = (
    *("data=dots", "reward=short_answer", "objective=own_terms", "model=rounded_tiny"),
    *("callbacks=note_best", "rollout.max_response_tokens=8"),
)


@pytest.fixture(scope="module")
def own_parts():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        yield
    allow_packages([])
    for name in [name for name in sys.modules if name.partition(".")[0] == "own_parts"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def run(own_parts, tmp_path_factory):
    """A training run of all parts."""
    from own_parts.adapter import RoundedVision

    folder, calls = tmp_path_factory.mktemp("run"), []
    original = RoundedVision.vision_features
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            RoundedVision,
            "vision_features",
            lambda self, *inputs: calls.append(None) or original(self, *inputs),
        )
        outcome = run_command(*ALLOWED, *SHORT, *CHOICES, f"run_dir={folder}", short=False)
    assert outcome.code == 0, outcome.stderr
    (folder / "passes_of_the_adapter").write_text(str(len(calls)))
    return folder


def test_there_is_one_of_each_and_each_is_small():
    assert [
        *("adapter", "callback", "credit", "grader", "problems", "reward", "term", "view"),
    ] == PARTS
    for part in PARTS:
        assert code_lines((EXAMPLES / "own_parts" / f"{part}.py").read_text()) <= 40, part
    readme = (EXAMPLES / "README.md").read_text()
    assert {f"{part}.py" for part in PARTS} == set(re.findall(r"\| `(\w+\.py)` \|", readme))


def test_all_of_them_take_part_in_training(run):
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    assert len(rows) == 2
    assert all(0 <= float(row["reward/brevity"]) <= 1 for row in rows)
    assert all(float(row["loss/near"]) >= 0 for row in rows)
    assert all(0 <= float(row["credit/zero_share"]) <= 1 for row in rows)
    best = json.loads((run / "largest.json").read_text())
    assert best["reward/mean"] == max(float(row["reward/mean"]) for row in rows)
    assert int((run / "passes_of_the_adapter").read_text()) > 0
    (shown, *_) = map(json.loads, (run / "rollouts.jsonl").read_text().splitlines())
    assert "How many dots are there?" in json.dumps(shown)


def test_a_view_and_a_grader_take_part_in_an_evaluation(run, tmp_path):
    words = (f"checkpoint={run}", "benchmark=dots", "views=mirrored", f"run_dir={tmp_path / 'e'}")
    outcome = run_evaluation(*ALLOWED, *SHORT_EVALUATION, *words, short=False)
    assert outcome.code == 0, outcome.stderr
    lines = (tmp_path / "e" / "responses.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert {record["view"] for record in records} == {"image", "mirrored"}
    assert all(set(record["verdicts"]) == {"last_number"} for record in records)


def test_without_being_allowed_on_the_command_line_none_is_built(run, tmp_path):
    refused = run_command(*ALLOWED[:2], *CHOICES, f"run_dir={tmp_path / 'run'}", short=False)
    assert refused.code == 1
    assert "allow=[my_package]" in refused.stderr
