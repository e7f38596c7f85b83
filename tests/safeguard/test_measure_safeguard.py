"""The measure of the detector on folders of runs whose collapses, losses and alarms are known."""

import csv
import math
import re
import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "measure_safeguard.py"
NAN = math.nan
VALIDATION, ACCURACY = "validation/training_prior/accuracy", "resample/drawn_correct"
FORM, KL, MASKED = "reward/error_format", "loss/perception_kl", "policy/sampled_masked_entropy"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(SCRIPT))


def write(folder, *, form, accuracy, validations, kl=0.1, masked=0.2, finished=True):
    """A run of 60 rollouts that was validated after every tenth."""
    folder.mkdir(parents=True)
    curves = {
        ACCURACY: accuracy,
        FORM: form,
        KL: [kl] * 60 if isinstance(kl, float) else kl,
        MASKED: [masked] * 60 if isinstance(masked, float) else masked,
        VALIDATION: [
            validations[step // 10 - 1] if step % 10 == 0 else NAN for step in range(1, 61)
        ],
    }
    with (folder / "metrics.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["rollout_step", *curves])
        for step, row in enumerate(zip(*curves.values(), strict=True), 1):
            writer.writerow([step, *row])
    if finished:
        (folder / "result.json").write_text("{}", "utf-8")


RISING = [0.2 + 0.005 * step + 0.01 * (step % 2) for step in range(60)]
BROKEN = [*RISING[:40], *[0.1, 0.11] * 10]
GROWING = [0.2 * math.exp(max(0, step - 15) / 8) for step in range(60)]


@pytest.fixture
def runs(tmp_path):
    """Two sound runs, one that lost its form for a while, a collapse of each kind and one seen late; an unfinished one."""
    sweep = tmp_path / "few"
    sound = {
        "form": [0.01] * 60,
        "accuracy": RISING,
        "validations": [0.2, 0.3, 0.4, 0.38, 0.5, 0.49],
    }
    for seed in (1, 2):
        write(sweep / "grpo" / f"seed_{seed}", **sound)
    lost = {**sound, "form": [*[0.0] * 30, *[0.3] * 6, *[0.0] * 24]}
    write(sweep / "papo" / "seed_1", **lost)
    write(
        sweep / "papo" / "seed_2",
        form=[*[0.0] * 40, *[0.8] * 20],
        accuracy=BROKEN,
        validations=[0.2, 0.3, 0.4, 0.39, 0.1, 0.1],
    )
    write(
        sweep / "papo" / "seed_3",
        form=[*[0.0] * 40, *[0.8] * 20],
        accuracy=BROKEN,
        validations=[0.2, 0.4, 0.35, 0.34, 0.1, 0.1],
    )
    write(
        sweep / "no_cure" / "seed_1",
        form=[*[0.0] * 40, *[0.8] * 20],
        accuracy=BROKEN,
        validations=[0.2, 0.3, 0.4, 0.375, 0.1, 0.3],
        kl=GROWING,
        masked=GROWING,
    )
    write(sweep / "no_cure" / "seed_2", **sound, finished=False)
    return sweep


def test_losses_alarms_and_leads_are_those_of_the_rules(script, runs):
    measured = {f"{run.arm} {run.seed}": run for run in script["measured"](runs)}
    kinds = {name: run.kind for name, run in measured.items()}
    assert kinds == {
        "grpo 1": "sound",
        "grpo 2": "sound",
        "papo 1": "sound, lost form",
        "papo 2": "collapsed, form breaks",
        "papo 3": "collapsed, form breaks",
        "no_cure 1": "collapsed, KL runs away",
    }
    # 0.38 is 2 points below 0.4, but the next validation is above: that was no loss.
    assert measured["grpo 1"].lost(0.02) is None
    assert measured["grpo 1"].alarm(8.0) is None
    # 0.39 is 1 point below; 0.1 is 30 below, as the next.
    assert measured["papo 2"].lost(0.02) == 50
    assert measured["papo 2"].alarm(8.0) == 41
    assert measured["papo 2"].lead(8.0, 0.02) == 9
    # It lost 5 points 12 rollouts before its form broke.
    assert measured["papo 3"].lead(8.0, 0.02) == 30 - 41
    # 0.375 is 2.5 points below: lost at 40 by 2 points, at 50 by 5.
    no_cure = measured["no_cure 1"]
    assert [no_cure.lost(points) for points in (0.02, 0.05, 0.1)] == [40, 50, 50]
    assert no_cure.alarm(8.0) < 40
    assert no_cure.alarm(1000.0) is None
    assert no_cure.lead(1000.0, 0.02) is None


def rows_of(text):
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return {row[0]: row[1:] for row in rows if len(row) > 1}


def test_the_tables_count_runs_with_their_intervals(script, runs, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["measure_safeguard.py", str(runs)])
    assert script["main"]() == 0
    rows = rows_of(out := capsys.readouterr().out)
    assert rows["sound"][0] == "0 of 2 (0.0 to 65.8 %)"
    assert rows["sound, lost form"][0] == "1 of 1 (20.7 to 100.0 %)"
    assert rows["collapsed, form breaks"][1:] == [
        "2 of 2 (34.2 to 100.0 %)",
        *["1 of 2 (9.5 to 90.5 %)"] * 2,  # 0.35 is 5 points below 0.4, and 0.34 too
        "2 of 2 (34.2 to 100.0 %)",
        "-2 (-7 to 3)",  # of 8 and -12 rollouts
    ]
    assert rows["few: papo"][:2] == ["1 of 1 (20.7 to 100.0 %)", "2 of 2 (34.2 to 100.0 %)"]
    assert rows["limit 8"][:4] == [
        "0.0 [0.0, 65.8]",
        "33.3 [6.1, 79.2]",
        "100.0 [43.9, 100.0]",
        "66.7 [20.8, 93.9]",
    ]
    assert rows["few: papo, seed 3"][:3] == ["collapsed, form breaks", "42", "30"]
    assert rows["few: papo, seed 1"] == ["sound, lost form", "32", "-", "30", "50", "49"]
    assert "few: grpo" in out


def test_folders_without_a_finished_run_are_refused(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["measure_safeguard.py", str(tmp_path)])
    assert script["main"]() == 1
    assert "no finished run" in capsys.readouterr().err


def test_a_page_gets_the_tables_below_its_headings(script, runs, tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    headings = ("Kinds of runs", "Arms", "Limits", "Exceptions")
    text = "".join(
        f"## {one}\n\nWhat it is.\n\n| old |\n| --- |\n| 1 |\n\nMore.\n\n" for one in headings
    )
    page.write_text("# Page\n\n" + text, "utf-8")
    command = ["measure_safeguard.py", str(runs), "--page", str(page), "--first-seed", "2"]
    monkeypatch.setattr(sys, "argv", command)
    assert script["main"]() == 0
    printed, written = capsys.readouterr().out, page.read_text("utf-8")
    assert "| old |" not in written
    assert written.count("What it is.") == written.count("More.") == 4
    for table in re.findall(r"(?:^\|.*\n)+", printed, re.MULTILINE):
        assert f"\n\n{table}\nMore." in written
    assert rows_of(written)["sound"][0] == "0 of 1 (0.0 to 79.3 %)"
    page.write_text("# Page\n\n## Arms\n", "utf-8")
    assert script["main"]() == 1
    assert "one heading 'Kinds of runs'" in capsys.readouterr().err
