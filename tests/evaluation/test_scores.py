"""Scores on hand-made records against the definitions, and the averages against the printed table."""

import csv
import io
import itertools
import json
from dataclasses import replace

import pytest
from evaluation.evaluation_parts import Problems, benchmark, record

from papo.evaluation.run.report import markdown, notes, table_csv, terminal_table
from papo.evaluation.run.summary import PAPO_EVAL, summarize
from papo.evaluation.scores import averages, score_responses
from papo.evaluation.settings import check_num_responses, evaluation_settings
from papo.storage.published import published_results
from papo.storage.responses import FinishedBatch

MAIN = published_results()["main"]
COLUMNS = MAIN["columns"]
ROWS = [name for name in MAIN if name != "columns"]


def rows_of(correct, benchmark="set", view="image", **changes):
    """Records of {problem: [right or not]}."""
    return [
        record(
            benchmark=benchmark,
            problem_id=problem,
            view=view,
            response_index=j,
            correct=right,
            verdicts={"strict": "correct" if right else "wrong"},
            **changes,
        )
        for problem, row in correct.items()
        for j, right in enumerate(row)
    ]


def scored(records, pass_at=(1,)):
    return score_responses(records, pass_at=pass_at, bootstrap_seed=0)


CORRECT = {
    "a": [True, True, True, True],
    "b": [True, False, False, False],
    "c": [False, False, False, False],
    "d": [True, False, True, False],
}


def test_avg_at_k_is_the_mean_over_problems_of_the_share_that_is_right():
    [one] = scored(rows_of(CORRECT))
    expected = sum(sum(row) / len(row) for row in CORRECT.values()) / len(CORRECT)
    assert one.accuracy.value == pytest.approx(expected, abs=1e-15)
    assert (one.num_problems, one.num_responses) == (4, 4)
    assert one.per_problem == {"a": 1.0, "b": 0.25, "c": 0.0, "d": 0.5}
    assert 0 < one.accuracy.low < one.accuracy.value < one.accuracy.high < 1


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_pass_at_k_is_the_share_of_draws_of_k_with_a_right_one(k):
    [one] = scored(rows_of(CORRECT), pass_at=(k,))
    shares = []
    for row in CORRECT.values():
        draws = list(itertools.combinations(row, k))
        shares.append(sum(any(draw) for draw in draws) / len(draws))
    assert one.pass_at[k].value == pytest.approx(sum(shares) / len(shares), abs=1e-12)


def test_pass_at_1_is_avg_at_k():
    [one] = scored(rows_of(CORRECT))
    assert one.pass_at[1].value == pytest.approx(one.accuracy.value, abs=1e-12)


def test_the_order_of_records_does_not_matter():
    records = rows_of(CORRECT)
    [one], [other] = scored(records), scored(sorted(records, key=lambda r: r.problem_id))
    assert one == other


def test_cut_boxed_formatted_and_tokens_are_shares_of_responses():
    records = [
        record(
            num_tokens=8, stop_reason="length", answer=None, correct=False, response="<think> x"
        ),
        record(num_tokens=2, response_index=1),
        record(num_tokens=2, response_index=2, response="\\boxed{1}"),
        record(num_tokens=4, response_index=3, response="< think > a </ think > \\boxed{1}"),
    ]
    [one] = scored(records)
    assert (one.cut, one.answered, one.formatted, one.mean_tokens) == (0.25, 0.75, 0.5, 4.0)


def test_every_grader_has_its_accuracy_and_their_disagreement_is_counted():
    verdicts = [
        {"mathruler": "wrong", "combined": "correct"},
        {"mathruler": "correct", "combined": "correct"},
        {"mathruler": "timeout", "combined": "crash"},
        {"mathruler": "wrong", "combined": "correct"},
    ]
    [one] = scored(record(verdicts=each, response_index=j) for j, each in enumerate(verdicts))
    assert one.accuracy_of("mathruler") == 0.25
    assert one.accuracy_of("combined") == 0.75
    assert one.disagreement == 0.5
    assert one.verdicts["mathruler"] == {"correct": 0.25, "timeout": 0.25, "wrong": 0.5}
    assert scored(rows_of(CORRECT))[0].disagreement is None


def test_benchmarks_and_views_are_told_apart():
    records = [
        *rows_of({"a": [True]}),
        *rows_of({"a": [False]}, view="blank"),
        *rows_of({"a": [True], "b": [False]}, benchmark="other"),
    ]
    found = {(one.benchmark, one.view): one.accuracy.value for one in scored(records)}
    assert found == {("set", "image"): 1.0, ("set", "blank"): 0.0, ("other", "image"): 0.5}


def test_problems_with_different_numbers_of_responses_are_refused():
    with pytest.raises(ValueError, match="problems with 1 and with 2"):
        scored(rows_of({"a": [True, False], "b": [True]}))


def as_column(column, per_cent):
    """Scores of a benchmark whose avg@8 is a printed number: one problem carries it."""
    [one] = scored(rows_of({"p": [True]}, benchmark=column))
    return type(one)(
        **{
            **{name: getattr(one, name) for name in one.__dataclass_fields__},
            "per_problem": {"p": per_cent / 100},
        }
    )


@pytest.mark.parametrize("row", ROWS)
def test_averages_of_the_printed_columns_are_the_printed_averages(row):
    by_column = {
        column: as_column(column, score)
        for column, score in zip(COLUMNS, MAIN[row]["scores"], strict=True)
    }
    found = {
        one.name: 100 * one.interval.value
        for one in averages(by_column, identities={}, bootstrap_seed=0)
    }
    for name in ("general", "vision", "overall"):
        # The printed columns and averages are rounded to two decimals.
        assert found[name] == pytest.approx(MAIN[row][name], abs=0.0101), name


def test_an_average_needs_all_of_its_benchmarks_and_says_which_miss():
    by_column = {column: as_column(column, 50.0) for column in COLUMNS[:5]}
    general, vision, overall = averages(by_column, identities={}, bootstrap_seed=0)
    assert general.interval is not None
    assert general.missing == ()
    assert vision.interval is None
    assert set(vision.missing) == {"logicvista", "counting", "mmmu_pro", "mathverse_v"}
    assert set(overall.missing) == set(vision.missing)


def test_problems_that_two_benchmarks_ask_are_resampled_together():
    rows = {f"{number}": [number % 3 == 0, number % 2 == 0] for number in range(30)}
    by_column = {column: scored(rows_of(rows, benchmark=column))[0] for column in COLUMNS}
    shared = {(column, id): id for column in ("mathverse", "mathverse_v") for id in rows}
    general, _, overall = averages(by_column, identities=shared, bootstrap_seed=0)
    assert (general.num_shared, overall.num_shared) == (0, 30)
    *_, apart = averages(by_column, identities={}, bootstrap_seed=0)
    # The variance of two of nine means becomes that of one with twice the weight: 11 / 9 of it.
    widths = [one.interval.high - one.interval.low for one in (overall, apart)]
    assert widths[0] / widths[1] == pytest.approx((11 / 9) ** 0.5, rel=0.03)
    assert overall.interval.value == pytest.approx(apart.interval.value)


SETTINGS = {
    "tokens_per_batch": 100,
    "pass_at": [1, 4],
    "bootstrap_seed": 0,
    "published": ["grpo_3b", "papo_g_3b"],
    "picture_side": 64,
}
PROTOCOL = {**PAPO_EVAL, "num_responses": 4, "limit": 3, "seed": 0}


def summary_of(records, benchmarks, protocol=PROTOCOL, batches=()):
    return summarize(
        scored(records, pass_at=(1, 4)),
        benchmarks=benchmarks,
        batches=batches,
        settings=evaluation_settings(SETTINGS),
        protocol=protocol,
        checkpoint={"location": "some|where", "weights": "abc"},
        identities={},
    )


def test_the_table_shows_the_published_row_beside_and_what_differs():
    geo3k = benchmark(Problems(4), key="g3k", published_column="geo3k")
    summary = json.loads(json.dumps(summary_of(rows_of(CORRECT, benchmark="g3k"), [geo3k])))
    [row, *means] = list(csv.DictReader(io.StringIO(table_csv(summary))))
    assert float(row["accuracy"]) == pytest.approx(7 / 16)
    assert float(row["published_grpo_3b"]) == pytest.approx(0.2872)
    assert float(row["published_papo_g_3b"]) == pytest.approx(0.3095)
    assert [mean["benchmark"] for mean in means] == ["general", "vision", "overall"]
    assert [mean["accuracy"] for mean in means] == ["", "", ""]
    assert float(means[2]["published_papo_g_3b"]) == pytest.approx(0.4992)
    told = "\n".join(notes(summary))
    assert "num_responses is 4, PAPO-Eval's 8" in told
    assert "limit is 3" in told
    assert "no general average: mathvista, wemath, mmk12, mathverse not evaluated" in told
    report = markdown(summary)
    assert "43.8 [" in report
    assert "| 28.7 | 30.9 |" in report or "| 28.7 | 31.0 |" in report
    assert terminal_table(summary).row_count == 1


def test_published_rows_stand_beside_the_plain_view_alone():
    geo3k = benchmark(Problems(4), key="g3k", published_column="geo3k")
    summary = summary_of(rows_of(CORRECT, benchmark="g3k", view="blank"), [geo3k])
    rows = list(csv.DictReader(io.StringIO(table_csv(summary))))
    assert {row["published_grpo_3b"] for row in rows} == {""}
    assert "28.7" not in markdown(summary)


def test_no_cell_of_the_table_is_a_formula():
    odd = replace(benchmark(Problems(4), key="g3k"), label='=HYPERLINK("http://x")')
    text = table_csv(summary_of(rows_of(CORRECT, benchmark="g3k", view="@SUM(1)"), [odd]))
    [row] = list(csv.DictReader(io.StringIO(text)))
    assert row["label"] == '\'=HYPERLINK("http://x")'
    assert row["view"] == "'@SUM(1)"
    assert float(row["accuracy"]) == pytest.approx(7 / 16)


def test_a_view_without_a_response_is_named():
    answered, left_out = benchmark(Problems(4)), benchmark(Problems(3), key="broken")
    batch = FinishedBatch(
        benchmark="broken",
        view="image",
        first_problem=0,
        num_problems=3,
        num_left_out=3,
        num_responses=0,
        num_tokens=0,
        sample_seconds=0.0,
        grade_seconds=0.0,
    )
    summary = summary_of(rows_of(CORRECT), [answered, left_out], batches=[batch])
    [note] = notes(summary)
    assert note.startswith("broken, image: 3 problems left out")


def test_another_grader_than_the_authors_is_a_deviation():
    geo3k = benchmark(Problems(4), key="g3k", published_column="geo3k")
    protocol = {**PAPO_EVAL, "grader": "combined"}
    summary = summary_of(rows_of(CORRECT, benchmark="g3k"), [geo3k], protocol=protocol)
    assert summary["deviations"] == ["grader is combined, PAPO-Eval's mathruler"]


def test_a_benchmark_that_nobody_published_has_no_published_columns():
    summary = summary_of(rows_of(CORRECT), [benchmark(Problems(4))])
    assert summary["published"] == {}
    assert summary["averages"] == summary["deviations"] == []
    assert notes(summary) == []


def test_the_published_protocol_deviates_in_nothing():
    geo3k = benchmark(Problems(4), key="g3k", published_column="geo3k")
    summary = summary_of(rows_of(CORRECT, benchmark="g3k"), [geo3k], protocol=PAPO_EVAL)
    assert summary["deviations"] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pass_at": [0]}, "evaluation.pass_at"),
        ({"pass_at": 8}, "evaluation.pass_at is a list"),
        ({"tokens_per_batch": 0}, "evaluation.tokens_per_batch"),
        ({"tokens_per_batch": "many"}, "evaluation.tokens_per_batch"),
        ({"bootstrap_seed": -1}, "evaluation.bootstrap_seed"),
        ({"published": ["papo"]}, "known: grpo_3b"),
        ({"pictures": 1}, "unknown key evaluation.pictures"),
    ],
)
def test_an_impossible_setting_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        evaluation_settings({**SETTINGS, **change})


def test_a_missing_setting_is_named():
    with pytest.raises(ValueError, match=r"evaluation\.published is not set"):
        evaluation_settings({key: value for key, value in SETTINGS.items() if key != "published"})


def test_pass_at_k_needs_k_responses():
    settings = evaluation_settings(SETTINGS)
    settings.check_pass_at(4)
    with pytest.raises(ValueError, match=r"pass@4 .* rollout\.num_responses=3"):
        settings.check_pass_at(3)


@pytest.mark.parametrize("bad", [0, -1, 2.0, True, "8", None])
def test_the_number_of_responses_is_a_count(bad):
    with pytest.raises(ValueError, match=r"rollout\.num_responses"):
        check_num_responses(bad)
    assert check_num_responses(8) == 8
