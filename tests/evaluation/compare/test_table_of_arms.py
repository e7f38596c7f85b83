"""Evaluations as the paper's Table 1: the numbers by hand, the published rows, what is refused."""

import csv
import json
import shutil
import sys

import pytest
from rich.text import Text
from test_comparison import write_evaluation

from papo.evaluation.compare.comparison import read_evaluation
from papo.evaluation.compare.table_of_arms import tabulate_arms
from papo.evaluation.compare.table_of_arms_report import (
    arms_markdown,
    arms_terminal_table,
    write_table_of_arms,
)
from papo.statistics import mean_relative_gain
from papo.storage.published import published_results
from scripts import compare_arms

COLUMNS = published_results()["main"]["columns"]


def verdicts(digits):
    """{benchmark: {problem: digits}} with the same problems in every benchmark of Table 1."""
    return {column: dict(zip("abcd", digits, strict=True)) for column in COLUMNS}


def fresh(folder):
    shutil.rmtree(folder, ignore_errors=True)
    return folder


@pytest.fixture
def tabulate(tmp_path):
    """Tabulates {arm: {benchmark: {problem: digits}}}."""

    def tabulate(arms, *, baselines=None, any_settings=False):
        evaluations = {
            name: read_evaluation(write_evaluation(fresh(tmp_path / name), one), view="image")
            for name, one in arms.items()
        }
        return tabulate_arms(
            evaluations,
            baselines=baselines or [next(iter(arms))],
            any_settings=any_settings,
            seed=0,
        )

    return tabulate


def test_averages_and_gains_by_hand(tabulate):
    first = verdicts(["10", "10", "00", "11"])  # 1/2
    second = verdicts(["11", "10", "10", "11"])  # 3/4
    second["counting"] = first["counting"]  # no gain in one of the four
    found = tabulate({"a": first, "b": second})
    base, arm = found.arms
    assert found.columns == tuple(COLUMNS)
    assert {name: base.averages[name].value for name in base.averages} == {
        "general": 0.5,
        "vision": 0.5,
        "overall": 0.5,
    }
    assert base.baseline is None
    assert base.gains == {}
    assert arm.baseline == "a"
    assert arm.averages["vision"].value == pytest.approx((3 * 0.75 + 0.5) / 4)
    # 3/4 over 1/2 is 50 % more.
    assert arm.gains["general"].value == pytest.approx(0.5)
    assert arm.gains["vision"].value == pytest.approx(3 * 0.5 / 4)
    assert arm.gains["overall"].value == pytest.approx(8 * 0.5 / 9)
    assert arm.gains["general"].low <= 0.5 <= arm.gains["general"].high


def test_an_arm_is_compared_with_the_last_baseline_before_it(tabulate):
    one, two, three = (verdicts([digit, "11", "00", "10"]) for digit in ("00", "10", "11"))
    found = tabulate({"a": one, "b": two, "c": two, "d": three}, baselines=["a", "c"])
    assert [arm.baseline for arm in found.arms] == [None, "a", None, "c"]
    assert found.arms[3].gains["overall"].value == pytest.approx((5 / 8) / (4 / 8) - 1)


def test_a_baseline_without_a_right_answer_gives_no_gain(tabulate):
    zero = verdicts(["10", "10", "10", "10"])
    zero["counting"] = dict.fromkeys("abcd", "00")
    found = tabulate({"a": zero, "b": verdicts(["11", "10", "10", "10"])})
    assert found.arms[1].gains["vision"] is None
    assert found.arms[1].gains["general"].value == pytest.approx(0.25)


def test_other_benchmarks_have_one_mean_and_no_published_row(tabulate):
    lab = {"lab_prior": {"a": "10"}, "lab_counter_prior": {"b": "11"}}
    found = tabulate({"grpo_3b": lab})
    assert found.groups == {"mean": ("lab_prior", "lab_counter_prior")}
    assert found.arms[0].averages["mean"].value == 0.75
    assert "| published |" not in arms_markdown(found)


def test_published_rows_stand_below_the_arms_named_like_them(tabulate, tmp_path):
    arms = {"grpo_3b": verdicts(["10", "00"] * 2), "papo_g_3b": verdicts(["11", "00"] * 2)}
    found = tabulate(arms)
    write_table_of_arms(found, tmp_path / "out")
    text = (tmp_path / "out" / "arms.md").read_text()
    below = [line for line in text.splitlines() if line.startswith("| published")]
    numbers = [cell.strip() for cell in below[1].split("|")[2:-1]]
    row, gains = (published_results()[part]["papo_g_3b"] for part in ("main", "relative_gains"))
    expected = [
        *row["scores"][:5], row["general"], gains["general"],
        *row["scores"][5:], row["vision"], gains["vision"], row["overall"], gains["overall"],
    ]  # fmt: skip
    assert numbers == [f"{value:.2f}" for value in expected]
    with (tmp_path / "out" / "arms.csv").open() as file:
        rows = list(csv.DictReader(file))
    gain = next(r for r in rows if r["arm"] == "papo_g_3b" and r["kind"] == "gain")
    assert float(gain["value"]) == pytest.approx(100.0)
    assert float(gain["published"]) == gains["general"]
    stored = json.loads((tmp_path / "out" / "arms.json").read_text())
    assert stored["arms"][1]["averages"]["overall"]["value"] == 0.5


def test_a_benchmark_s_name_is_no_markup(tabulate):
    evil = "[/bold]<b>|x"
    found = tabulate({"a": {evil: {"p": "10"}}})
    (column,) = [one for one in arms_terminal_table(found).columns if "x" in str(one.header)]
    assert Text.from_markup(str(column.header)).plain == evil
    assert "[/bold]&lt;b&gt;\\|x" in arms_markdown(found)


def test_no_cell_of_arms_csv_is_a_formula(tabulate, tmp_path):
    write_table_of_arms(tabulate({"=HYPERLINK(1)": {"some": {"a": "10"}}}), tmp_path / "out")
    with (tmp_path / "out" / "arms.csv").open(newline="") as file:
        _, *rows = csv.reader(file)
    assert {row[0] for row in rows} == {"'=HYPERLINK(1)"}


def test_the_published_gains_are_the_means_over_columns_that_the_table_computes():
    main, gains = (published_results()[part] for part in ("main", "relative_gains"))
    # The paper prints other values there (papo/storage/published.yaml says what its columns give).
    unlike = {("papo_d_3b", "vision"), ("papo_d_7b", "vision")} | {
        ("papo_g_qwen3_vl_2b", group) for group in ("general", "vision", "overall")
    }
    parts = {"general": slice(5), "vision": slice(5, 9), "overall": slice(9)}
    for arm, printed in gains.items():
        for group, part in parts.items():
            before, after = (main[name]["scores"][part] for name in (printed["baseline"], arm))
            found = mean_relative_gain([[v] for v in before], [[v] for v in after], seed=0)
            agrees = abs(100 * found.value - printed[group]) < 0.011
            assert agrees != ((arm, group) in unlike), (arm, group, found.value)


def test_gains_resample_both_runs_together():
    # Twice as many everywhere: whatever is drawn, the gain is 100 %. Open is what 400 items did not
    # show, 5 points; runs resampled apart would scatter by 9.
    before = [[0.1, 0.2, 0.4, 0.3] * 100, [0.5, 0.25, 0.05, 0.2] * 100]
    after = [[2 * value for value in group] for group in before]
    found = mean_relative_gain(before, after, seed=0)
    assert found.value == pytest.approx(1.0)
    assert 0.93 < found.low < 1.0 < found.high < 1.05
    with pytest.raises(ValueError, match="positive mean"):
        mean_relative_gain([[0.0]], [[1.0]], seed=0)
    with pytest.raises(ValueError, match="same groups twice; got 0 and 0"):
        mean_relative_gain([], [], seed=0)


def test_problems_that_benchmarks_share_are_resampled_together():
    before, after = [0.1, 0.2, 0.4, 0.3, 0.9], [0.5, 0.25, 0.3, 0.2, 1.0]
    once = mean_relative_gain([before], [after], seed=0)
    # A benchmark counted twice is known no better; two of the same numbers are.
    twice = mean_relative_gain([before] * 2, [after] * 2, names=[list("abcde")] * 2, seed=0)
    apart = mean_relative_gain([before] * 2, [after] * 2, seed=0)
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))
    assert apart.high - apart.low < 0.85 * (once.high - once.low)
    assert twice.value == apart.value == once.value
    # One shared item of several, in another order and place.
    part = mean_relative_gain(
        [before, before[::-1]], [after, after[::-1]], names=[list("abcde"), list("vwxya")], seed=0
    )
    assert part.value == pytest.approx(once.value)
    with pytest.raises(ValueError, match="longer"):
        mean_relative_gain([before], [after], names=[list("abcdef")], seed=0)


def test_what_cannot_stand_in_one_table_is_refused(tabulate):
    one = {"some": {"a": "10"}}
    with pytest.raises(ValueError, match="a baseline is one of the arms a; got 'b'"):
        tabulate({"a": one}, baselines=["b"])
    with pytest.raises(ValueError, match="the first arm is one; 'a' is not"):
        tabulate({"a": one, "b": one}, baselines=["b"])
    with pytest.raises(ValueError, match=r"only .* was evaluated on some"):
        tabulate({"a": one, "c": {"other": {"a": "10"}}})


def test_the_command_prints_the_table_and_refuses_nonsense(tmp_path, monkeypatch, capsys):
    write_evaluation(tmp_path / "one", {"some": {"a": "10"}})

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["compare_arms.py", *arguments])
        return compare_arms.main(), capsys.readouterr()

    code, said = run(f"[b]first={tmp_path / 'one'}", f"second={tmp_path / 'one'}")
    assert code == 0, said.err
    assert "[b]first" in said.out
    assert "+0.0" in said.out
    code, said = run("nonsense")
    assert code == 1
    assert said.err.strip() == "error: an arm is NAME=FOLDER; got 'nonsense'"
    code, said = run(f"a={tmp_path / 'one'}", f"a={tmp_path / 'one'}")
    assert "'a' comes twice" in said.err
