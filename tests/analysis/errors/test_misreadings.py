"""Which numbers of drawn scenes are read as which, and which facts of diagrams are misread."""

from pathlib import Path

import pytest
from analysis.evaluation_fixtures import lab_record, record, write_evaluation

from papo.analysis.errors.misread_facts import misread_facts
from papo.analysis.errors.misreading_report import (
    confusion_table,
    misreading_sentences,
    mistake_table,
    side_table,
)
from papo.analysis.errors.misreadings import example_misreadings, read_readings, summarize_readings
from papo.analysis.errors.taxonomy import ErrorCategory, ErrorLabel
from papo.lab import PerceptionLabProblems, scene_numbers
from papo.lab.grading import write_response
from papo.storage.evaluated_run import EvaluatedRun, read_evaluated_runs


def area(index: int, a: int, b: int, **values):
    """A response about the area of a 3 by 4 rectangle that reads a by b."""
    text = f"<think> a = {a} , b = {b} , a * b = {a * b} </think> \\boxed{{ {a * b} }}"
    return record(index, text, benchmark="lab", verdicts={"lab": "perception"}, **values)


def run_of(folder: Path, records) -> EvaluatedRun:
    write_evaluation(folder, records)
    (run,) = read_evaluated_runs([folder], view="image", require_finished=True)
    return run


def test_readings_are_counted_by_what_is_shown_and_said(tmp_path):
    records = [area(0, 3, 4), area(1, 7, 4), area(2, 7, 9), area(3, 8, 4), lab_record(4, "format")]
    found = read_readings(run_of(tmp_path / "a", records))
    assert found is not None
    one = summarize_readings(found, seed=1)
    assert [(cell.shown, cell.said, cell.readings) for cell in one.table] == [
        *((3, 3, 1), (3, 7, 2), (3, 8, 1)),
        *((4, 4, 3), (4, 9, 1)),
    ]
    assert (one.readings, one.misread, one.responses_left_out) == (8, 4, 1)
    assert one.share.value == 0.5
    assert mistake_table(one, most=1)[1] == [["3 read as 7", "2", "4", "50.0"]]
    headings, rows = confusion_table(one)
    assert headings[1:-1] == ["3", "4", "7", "8", "9"]
    assert rows == [
        ["3", "1", "0", "2", "1", "0", "75.0"],
        ["4", "0", "3", "0", "0", "1", "25.0"],
    ]
    ((reading, times), *others) = example_misreadings(found, 5)
    assert (reading.shown, reading.said, reading.side, times) == (3, 7, "a", 2)
    assert len(others) == 2


def test_guesses_are_wrong_readings_that_say_the_commonest_number_of_training(tmp_path):
    # Under "area", a is most often 7 and b most often 4; b shows 4, so b = 9 can be no such guess.
    records = [area(0, 7, 9), area(1, 7, 4), area(2, 8, 4), area(3, 3, 4)]
    found = read_readings(run_of(tmp_path / "a", records))
    assert found is not None
    one = summarize_readings(found, seed=1)
    lab = one.benchmarks["lab"]
    assert (lab.could_be_guessed, lab.said_likeliest) == (3, 2)
    assert lab.guessed.value == pytest.approx(2 / 3)
    assert lab.evenly == pytest.approx(1 / 7)
    assert [row[:4] for row in side_table(one)[1]] == [
        ["area, a", "4", "75.0", "7"],
        ["area, b", "4", "25.0", "4"],
    ]
    assert "66.7" in " ".join(misreading_sentences(one))


def test_readings_of_real_scenes_match_their_truth_side_by_side(tmp_path):
    problems = PerceptionLabProblems(
        seed=1, prior="uniform", zipf_exponent=1.0, difficulty=0.0, size=6
    )
    for index, problem in enumerate(problems):
        assert problem.truth is not None
        sides = scene_numbers(problem.truth)
        said = {side: 2 + (number + index) % 8 for side, number in sides.items()}
        text = write_response(problem.truth["operation"], *said.values())
        folder = write_evaluation(
            tmp_path / str(index), [record(0, text)], truth=dict(problem.truth)
        )
        (run,) = read_evaluated_runs([folder], view="image", require_finished=True)
        found = read_readings(run)
        assert found is not None
        assert [(one.side, one.shown, one.said) for one in found.readings] == [
            (side, number, said[side]) for side, number in sides.items()
        ]


def test_other_pictures_have_no_readings(tmp_path):
    folder = write_evaluation(tmp_path / "geo", [record(0, "a = 3")], truth={"facts": []})
    (run,) = read_evaluated_runs([folder], view="image", require_finished=True)
    assert read_readings(run) is None


def test_a_run_without_any_readable_response_says_so(tmp_path):
    found = read_readings(run_of(tmp_path / "a", [lab_record(0, "format")]))
    assert found is not None
    one = summarize_readings(found, seed=1)
    assert one.share is None
    assert "no response follows" in misreading_sentences(one)[0]


def misread(run: str, quote: str, evidence: str) -> ErrorLabel:
    return ErrorLabel(
        item=quote,
        run=run,
        benchmark="geo3k",
        problem_id="p",
        response_index=0,
        category=ErrorCategory.PERCEPTION,
        labeller="geometry",
        evidence=evidence,
        quote=quote,
    )


def test_misread_facts_are_counted_by_kind_and_run():
    labels = [
        misread("a", "AB = 9", "the diagram has Equals(LengthOf(Line(A, B)), 8)"),
        misread("b", "BC = 7", "the diagram has Equals(LengthOf(Line(B, C)), 6)"),
        misread("a", "angle A = 9", "the diagram has Equals(MeasureOf(Angle(A)), 8)"),
        misread("a", "AB || CD", "the diagram has these lines perpendicular"),
    ]
    facts = misread_facts(labels, ["a", "b"])
    assert [(one.kind, one.runs) for one in facts] == [
        ("a length", {"a": 1, "b": 1}),
        ("an angle", {"a": 1, "b": 0}),
        ("parallel or perpendicular lines", {"a": 1, "b": 0}),
    ]
    assert facts[0].quote == "AB = 9"
