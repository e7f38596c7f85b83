"""What became of the same slots in another run, against counts by hand."""

import dataclasses
from pathlib import Path

import pytest
from analysis.evaluation_fixtures import lab_record, write_evaluation
from scipy import stats

from papo.analysis.errors.analysis import LabelledSample, label_sample, summarize
from papo.analysis.errors.labellers.lab import LabLabels
from papo.analysis.errors.markdown import report_markdown
from papo.analysis.errors.plots import share_chart, transition_chart
from papo.analysis.errors.sampling import draw_sample
from papo.analysis.errors.tables import (
    headline_sentences,
    paper_table,
    transition_table,
    transitions_csv,
)
from papo.analysis.errors.taxonomy import ErrorCategory, ErrorLabel
from papo.analysis.errors.transitions import compute_transitions
from papo.storage.evaluated_run import read_evaluated_runs

C, P, R = ErrorCategory.CORRECT, ErrorCategory.PERCEPTION, ErrorCategory.REASONING

# (before, after) -> problems
MOVES = {
    ("correct", "correct"): 8,
    ("correct", "perception"): 2,
    ("perception", "correct"): 9,
    ("perception", "perception"): 5,
    ("perception", "reasoning"): 4,
    ("reasoning", "correct"): 1,
    ("reasoning", "reasoning"): 3,
}


@pytest.fixture
def sample(tmp_path: Path):
    pairs = [pair for pair, count in MOVES.items() for _ in range(count)]
    for name, kinds in zip(("old", "new"), zip(*pairs, strict=True), strict=True):
        write_evaluation(tmp_path / name, [lab_record(i, kind) for i, kind in enumerate(kinds)])
    runs = read_evaluated_runs(
        [tmp_path / "old", tmp_path / "new"], view="image", require_finished=True
    )
    return draw_sample(runs, num_cases=None, seed=1)


def lab_labels(sample) -> dict[str, ErrorLabel]:
    labels = LabLabels().label(sample.cases)
    return {label.item: label for label in labels if isinstance(label, ErrorLabel)}


def test_every_slot_stands_in_its_cell(sample):
    found = compute_transitions(sample, lab_labels(sample), labeller="lab", after="new", seed=1)
    assert found is not None
    assert {(str(a), str(b)): n for (a, b), n in found.counts.items()} == MOVES
    assert found.units == sum(MOVES.values()) == 32
    assert found.left_out == 0
    assert [found.counts[P, after] for after in (C, P, R)] == [9, 5, 4]


def test_the_tests_are_those_of_the_counts(sample):
    found = compute_transitions(sample, lab_labels(sample), labeller="lab", after="new", seed=1)
    assert found is not None
    # perception: 18 before, 7 after; lost in 9 + 4 slots, new in 2
    assert (found.perception.before, found.perception.after) == (18, 7)
    assert (found.perception.only_before, found.perception.only_after) == (13, 2)
    assert found.perception.p_value == pytest.approx(stats.binomtest(13, 15, 0.5).pvalue)
    # right: 10 before, 18 after; lost in 2 slots, won in 10
    assert (found.correct.only_before, found.correct.only_after) == (2, 10)
    assert found.correct.p_value == pytest.approx(stats.binomtest(2, 12, 0.5).pvalue)
    assert found.reduction is not None
    assert found.reduction.value == pytest.approx(1 - 7 / 18)
    assert found.reduction.low < 1 - 7 / 18 < found.reduction.high
    # Bowker: (2-9)^2/11 + (0-1)^2/1 + (4-0)^2/4 on 3 pairs
    assert found.symmetry_p == pytest.approx(stats.chi2.sf(49 / 11 + 1 + 4, 3))


def test_slots_without_a_label_are_left_out_and_counted(sample):
    labels = lab_labels(sample)
    del labels[sample.cases[0].item]
    found = compute_transitions(sample, labels, labeller="lab", after="new", seed=1)
    assert found is not None
    assert found.left_out == 1
    assert found.units == 31
    # Whether an answer is right needs no label, so all 32 slots count.
    few = dict(list(labels.items())[-4:])
    found = compute_transitions(sample, few, labeller="lab", after="new", seed=1)
    assert found is not None
    assert (found.correct.only_before, found.correct.only_after) == (2, 10)
    assert compute_transitions(sample, {}, labeller="none", after="new", seed=1) is None


@pytest.mark.parametrize("missing", [0, 1])
def test_changes_are_headlined_only_where_every_wrong_answer_has_a_label(sample, missing):
    labels = list(lab_labels(sample).values())[missing:]
    people = [dataclasses.replace(label, labeller="human:Ada") for label in labels]
    summary = summarize(label_sample(sample, [], people), seed=1, min_validated=30)
    assert summary.headline.labeller == "human:Ada"
    changes = [text for text in headline_sentences(summary) if "perception errors went" in text]
    assert len(changes) == 1 - missing
    assert (paper_table(summary)[1][-1][-1] == "-") == bool(missing)
    assert ("overstated" in report_markdown(summary)) == bool(missing)


def test_a_judges_changes_are_never_headlined(sample):
    lab = lab_labels(sample)
    judge = {key: dataclasses.replace(one, labeller="judge:m") for key, one in lab.items()}
    # The lab knows all cases but one, so it is no headline; the judge is checked by the rest.
    del lab[sample.cases[0].item]
    labelled = LabelledSample(sample=sample, labels={"lab": lab, "judge:m": judge}, exclusions=())
    summary = summarize(labelled, seed=1, min_validated=30)
    assert summary.headline.labeller == "judge:m"
    assert not any("perception errors went" in text for text in headline_sentences(summary))


def test_without_perception_errors_before_there_is_no_reduction(tmp_path):
    for name, kind in (("old", "reasoning"), ("new", "perception")):
        write_evaluation(tmp_path / name, [lab_record(i, kind) for i in range(4)])
    runs = read_evaluated_runs(
        [tmp_path / "old", tmp_path / "new"], view="image", require_finished=True
    )
    sample = draw_sample(runs, num_cases=None, seed=1)
    found = compute_transitions(sample, lab_labels(sample), labeller="lab", after="new", seed=1)
    assert found is not None
    assert found.reduction is None
    assert found.perception.p_value == pytest.approx(2 * 0.5**4)


def test_equal_runs_show_no_change(tmp_path):
    for name in ("old", "new"):
        write_evaluation(tmp_path / name, [lab_record(i, "perception") for i in range(6)])
    runs = read_evaluated_runs(
        [tmp_path / "old", tmp_path / "new"], view="image", require_finished=True
    )
    sample = draw_sample(runs, num_cases=None, seed=1)
    found = compute_transitions(sample, lab_labels(sample), labeller="lab", after="new", seed=1)
    assert found is not None
    assert found.reduction is not None
    assert found.reduction.value == 0
    assert (found.perception.p_value, found.correct.p_value, found.symmetry_p) == (1, 1, 1)


def test_tables_and_charts_show_the_counts(sample):
    summary = summarize(label_sample(sample, [LabLabels()], []), seed=1, min_validated=30)
    (one,) = summary.transitions
    headings, rows = transition_table(one)
    assert headings == ["old \\ new", "correct", "perception", "reasoning", "all"]
    assert rows == [
        ["correct", "8", "2", "0", "10"],
        ["perception", "9", "5", "4", "18"],
        ["reasoning", "1", "0", "3", "4"],
        ["all", "18", "7", "7", "32"],
    ]
    assert "lab,old,new,perception,correct,9\n" in transitions_csv(summary)
    assert "61.1 [" in report_markdown(summary)  # 1 - 7 / 18
    # 18 of 22 wrong answers before, 7 of 14 after.
    spoken = share_chart(summary, "lab").spoken
    assert "perception old 81.8 [" in spoken
    assert "new 50 [" in spoken
    assert "the paper (another model and data) 67 [" in spoken
    assert "format" not in spoken, "what no answer got wrong has no row"
    assert transition_chart(one).spoken.endswith(
        "response slots: correct (10) correct 8, perception 2, reasoning 0; perception (18) correct 9, "
        "perception 5, reasoning 4; reasoning (4) correct 1, perception 0, reasoning 3"
    )


def test_categories_are_words_in_every_table(sample):
    labels = [
        dataclasses.replace(label, category=ErrorCategory.LABEL_ERROR, labeller="human:Ada")
        for label in lab_labels(sample).values()
    ]
    summary = summarize(label_sample(sample, [], labels), seed=1, min_validated=30)
    text = report_markdown(summary)
    assert "| label error |" in text
    assert "| label_error |" not in text
