"""The runs of a sweep in one file give the tables that its folder gives."""

import json
import math
import runpy
import sys
from pathlib import Path

import pytest
from analysis.sweeps.test_sweep_report import lab_evaluation, write_run

from papo.analysis.sweeps.comparison import summarize_sweep
from papo.commands import report_sweep
from papo.storage.files import DamagedFile
from papo.storage.kept_runs import keep_runs, read_kept_runs
from papo.storage.sweep_folders import read_sweep

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "report_regimes.py"
NAN = float("nan")
SOUND = [0.1, 0.3, 0.5, 0.7, 0.8, 0.8, 0.82, 0.8, 0.81, 0.8] * 2


@pytest.fixture
def folder(tmp_path):
    """Of three arms: one collapses, one was steered, and their rollouts drew different numbers of prompts."""
    for seed in (1, 2):
        for arm, accuracies, columns in (
            ("grpo", SOUND, {"prompts_drawn": range(16, 336, 16)}),
            (
                "papo",
                [*SOUND[:10], *[0.1 + seed / 300] * 10],
                {
                    "prompts_drawn": range(32, 352, 16),
                    "loss/perception_kl": [*[0.1] * 10, *[2.0] * 10],
                    "reward/error_format": [*[0.0] * 10, *[0.5] * 10],
                    "update/grad_norm": [1.0] * 20,
                },
            ),
            (
                "papo_act",
                SOUND,
                {
                    "prompts_drawn": range(16, 336, 16),
                    "safeguard/factor": [0.5] * 20,
                    "safeguard/returned_to": [NAN] * 19 + [4.0],
                },
            ),
        ):
            write_run(
                tmp_path / "few" / arm / f"seed_{seed}", arm=arm, seed=seed,
                accuracies=[value + seed / 700 for value in accuracies], columns=columns,
                evaluation=lab_evaluation(accuracies[-1] + seed / 700, 0.2),
                settings={"rollout": {"num_responses": 8}, "model": {"path": "somewhere"}},
            )  # fmt: skip
    return tmp_path / "few"


@pytest.fixture
def script():
    return runpy.run_path(str(SCRIPT))


def test_every_table_is_that_of_the_folder(folder, tmp_path, script):
    kept = script["kept"](folder, tmp_path / "kept")
    assert kept.name == "few.jsonl"
    assert script["table_of"]([kept], "grpo", "papo_act") == script["table_of"](
        [folder], "grpo", "papo_act"
    )
    ours, theirs = (summarize_sweep(read_sweep(each), baseline=None) for each in (kept, folder))
    assert ours.arms == theirs.arms
    assert ours.measures == theirs.measures
    assert "accuracy_curve_equal_cost" in ours.measures
    for arm in ours.arms:
        assert ours.signs[arm].collapsed == theirs.signs[arm].collapsed
        for measure, score in theirs.scores[arm].items():
            assert ours.scores[arm][measure].mean == pytest.approx(score.mean, rel=1e-4)
    assert ours.signs["papo"].collapsed == (1, 2)


def test_what_no_table_needs_stays_behind(folder, tmp_path):
    keep_runs(read_sweep(folder), tmp_path / "few.jsonl")
    text = (tmp_path / "few.jsonl").read_text()
    assert "grad_norm" not in text
    assert "somewhere" not in text
    assert str(tmp_path) not in text
    # JSON knows no NaN, and another reader would stop there.
    records = [
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        for line in text.splitlines()
    ]
    assert records[0] == {"sweep": "lab_gamma", "arms": ["grpo", "papo", "papo_act"]}
    assert [record["seed"] for record in records[1:]] == [1, 2] * 3
    returned = read_kept_runs(tmp_path / "few.jsonl").of_arm("papo_act")[0].curves
    assert math.isnan(returned["safeguard/returned_to"][0])
    assert returned["safeguard/returned_to"][-1] == 4


@pytest.mark.parametrize(
    "spoil",
    [
        lambda lines: [],
        lambda lines: lines[:1],
        lambda lines: lines[1:],
        lambda lines: [*lines[:2], lines[2][: len(lines[2]) // 2]],
        lambda lines: [*lines[:2], "[1]"],
        lambda lines: [*lines[:2], lines[2].replace('"seed": ', '"seed": "x", "s": ')],
        lambda lines: [*lines[:2], '{"arm": ' + "[" * 100_000],
        lambda lines: [*lines[:3], lines[2]],
    ],
)
def test_a_spoilt_file_says_so(folder, tmp_path, spoil):
    file = tmp_path / "few.jsonl"
    keep_runs(read_sweep(folder), file)
    file.write_text("\n".join(spoil(file.read_text().splitlines())))
    with pytest.raises(DamagedFile, match=r"no file of kept runs: .* behind run \d"):
        read_sweep(file)


def test_a_report_is_written_beside_the_file_and_not_in_it(folder, tmp_path, monkeypatch, capsys):
    file = tmp_path / "few.jsonl"
    keep_runs(read_sweep(folder), file)
    monkeypatch.setattr(sys, "argv", ["report_sweep", str(file)])
    assert report_sweep.main() == 1
    assert "add --output FOLDER" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["report_sweep", str(file), "--output", str(tmp_path / "of")])
    assert report_sweep.main() == 0
    assert (tmp_path / "of" / "report.html").exists()
