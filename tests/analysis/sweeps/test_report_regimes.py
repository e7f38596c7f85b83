"""Arms of several regimes against one of them, in one table."""

import runpy
import sys
from pathlib import Path

import pytest
from analysis.sweeps.test_sweep_report import lab_evaluation, write_run

SCRIPT = Path(__file__).parents[3] / "scripts" / "report_regimes.py"
NAN = float("nan")


@pytest.fixture
def script():
    return runpy.run_path(str(SCRIPT))


@pytest.fixture
def regimes(tmp_path):
    """Two regimes; the safeguard held one run back and took another to a checkpoint as well."""
    for regime, gain in (("few", 0.1), ("all", 0.0)):
        for seed, accuracy in ((1, 0.5), (2, 0.6)):
            write_run(
                tmp_path / regime / "grpo" / f"seed_{seed}", arm="grpo", seed=seed,
                accuracies=[accuracy] * 4, evaluation=lab_evaluation(accuracy, 0.2),
            )  # fmt: skip
            worth = accuracy + gain + 0.01 * seed
            held, back = (0.5, 2.0) if seed == 1 else (1.0, NAN)
            write_run(
                tmp_path / regime / "papo" / f"seed_{seed}", arm="papo", seed=seed,
                accuracies=[worth] * 4, evaluation=lab_evaluation(worth, 0.2),
                columns={"safeguard/factor": [1, 1, held, 1], "safeguard/returned_to": [NAN, NAN, back, NAN]},
            )  # fmt: skip
    return [tmp_path / "few", tmp_path / "all"]


def test_each_regime_has_its_baseline_and_paired_differences(script, regimes):
    lines = script["table_of"](regimes, "grpo").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert [row[0] for row in rows] == [
        "few: grpo, itself", "few: papo", "all: grpo, itself", "all: papo",
    ]  # fmt: skip
    # 0.11 and 0.12: mean 11.5, 12.7 * 0.5 to either side.
    assert rows[1][2:5] == ["+11.5 [+5.1, +17.9]*"] * 3
    assert rows[3][2] == "+1.5 [-4.9, +7.9]"
    assert rows[0][2].startswith("55.0 [")
    assert rows[1][5:] == ["0 of 2 [0, 66]", "1", "1"]
    assert rows[0][6:] == ["", ""]


def test_a_second_arm_stands_beside_and_what_is_found_has_a_star(script, regimes):
    for seed in (3, 4, 5):
        for arm, accuracy in (("grpo", 0.5), ("papo", 0.6 + 0.01 * seed)):
            write_run(
                regimes[0] / arm / f"seed_{seed}", arm=arm, seed=seed,
                accuracies=[accuracy] * 4, evaluation=lab_evaluation(accuracy, 0.2),
            )  # fmt: skip
    head, _, grpo, papo = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in script["table_of"](regimes[:1], "grpo", "papo").splitlines()
    )
    column = head.index("than `papo`")
    assert grpo[column].startswith("-13.0 [")
    assert grpo[column].endswith("]*")
    assert papo[column] == ""
    # 11 to 15 points: mean 13, Student's t of four degrees 2.776 * 1.58 / sqrt(5).
    assert papo[column - 1] == "+13.0 [+11.0, +15.0]*"


def test_arms_stand_as_the_sweep_lists_them_or_best_first_behind_the_baseline(script, regimes):
    for name, accuracy in (("a", 0.3), ("b", 0.9)):
        write_run(
            regimes[0] / name / "seed_1", arm=name, seed=1,
            accuracies=[accuracy] * 4, evaluation=lab_evaluation(accuracy, 0.2),
        )  # fmt: skip

    def arms(**order):
        lines = script["table_of"](regimes[:1], "grpo", **order).splitlines()[2:]
        return [line.split("|")[1].split(":")[1].strip() for line in lines]

    assert arms() == ["grpo, itself", "a", "b", "papo"]
    assert arms(best_first=True) == ["grpo, itself", "b", "papo", "a"]


def test_a_regime_without_the_second_arm_has_no_such_difference(script, regimes):
    lines = script["table_of"](regimes[:1], "grpo", "entropy").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    column = rows[0].index("than `entropy`")
    assert [row[column] for row in rows[2:]] == ["", ""]


def test_columns_of_the_safeguard_are_left_out_where_none_was_on(script, regimes, tmp_path):
    for seed in (1, 2):
        for arm in ("grpo", "papo"):
            write_run(
                tmp_path / "plain" / arm / f"seed_{seed}", arm=arm, seed=seed,
                accuracies=[0.5] * 4, evaluation=lab_evaluation(0.5, 0.2),
            )  # fmt: skip
    plain = script["table_of"]([tmp_path / "plain"], "grpo").splitlines()[0]
    assert plain.strip("| ").endswith("collapsed")
    assert "went back" in script["table_of"]([tmp_path / "plain", regimes[0]], "grpo")


def test_the_table_takes_its_place_on_a_page(script, regimes, tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    page.write_text("# P\n\n### Against GRPO\n\nWords.\n\n| old |\n| --- |\n| 1 |\n\nMore.\n")
    arguments = [str(SCRIPT), *map(str, regimes), "--page", str(page)]
    monkeypatch.setattr(sys, "argv", arguments)
    assert script["main"]() == 0
    text = page.read_text()
    assert "| old |" not in text
    assert "Words.\n\n|  | seeds |" in text
    assert text.endswith("\n\nMore.\n")
    page.write_text("no heading\n")
    assert script["main"]() == 1
    assert "one heading 'Against GRPO'" in capsys.readouterr().err
