"""All graders are asked about every final answer; the named one decides, as PAPO-Eval does."""

import json
import re
from pathlib import Path

import pytest
from mathruler.grader import extract_boxed_content, grade_answer

from papo.rewards import AnswerGrader
from papo.types import Grader, Problem

GOLDEN = Path(__file__).parents[1] / "golden" / "grader_cases.jsonl"
CASES = [
    ("<think>r</think> \\boxed{12}", "12"),
    ("\\boxed{ 4\\sqrt{3} }", "4 \\sqrt { 3 }"),
    ("\\boxed{1} no, \\boxed{2}", "2"),
    ("\\boxed{1} no, \\boxed{2}", "1"),
    ("the answer is 12", "12"),
    ("\\boxed{12", "12"),
    ("\\boxed{B}", "B"),
    ("\\boxed{(B) 12}", "B"),
    ("\\boxed{A,C}", "A, C"),
    ("\\boxed{C, A}", "A, C"),
    ("\\boxed{0.5}", "\\frac { 1 } { 2 }"),
    ("\\boxed{a < b}", "a<b"),
    ("\\boxed {4}", "4"),
    ("\\boxed{}", "4"),
    ("\\boxed{3}", "4 \\sqrt { 3 }"),
]


def problem(answer):
    return Problem(id="0", question="?", answer=answer, images=(), source="test")


def grade(grader, cases):
    return grader([problem(answer) for _, answer in cases], [text for text, _ in cases])


@pytest.fixture(scope="module")
def mathruler():
    grader = AnswerGrader(grader="mathruler", deadline_seconds=5.0, num_workers=1)
    yield grader
    grader.close()


@pytest.fixture(scope="module")
def combined():
    grader = AnswerGrader(grader="combined", deadline_seconds=5.0, num_workers=1)
    yield grader
    grader.close()


def papo_eval(predict, label):
    """PAPO-Eval's `eval_utils.py` at b57d909; its "None" for a missing box is no answer here."""
    predict = re.sub(r"\s*(<|>|/)\s*", r"\1", predict)
    answer = extract_boxed_content(predict)
    return answer != "None" and grade_answer(answer, label)


def test_mathruler_counts_what_papo_eval_counts(mathruler):
    graded = grade(mathruler, CASES)
    expected = [papo_eval(text, answer) for text, answer in CASES]
    assert [one.correct for one in graded] == expected
    assert {True, False} == set(expected)


def test_mathruler_counts_what_papo_eval_counts_on_the_golden_cases(mathruler):
    lines = [json.loads(line) for line in GOLDEN.read_text("utf-8").splitlines()]
    cases = [(line["prediction"], line["answer"]) for line in lines]
    # Here nothing stops mathruler from computing towers of powers and factorials for ever.
    cases = [(text, answer) for text, answer in cases if not re.search(r"!|\*\*|\^.*\^", text)]
    assert len(cases) > 80
    graded = grade(mathruler, cases)
    expected = [papo_eval(text, answer) for text, answer in cases]
    assert [one.correct for one in graded] == expected


def test_every_grader_gives_a_verdict_and_the_named_one_decides(mathruler, combined):
    by_mathruler, by_combined = grade(mathruler, CASES), grade(combined, CASES)
    for one, other in zip(by_mathruler, by_combined, strict=True):
        assert one.verdicts == other.verdicts
        assert set(one.verdicts) == {"mathruler", "math_verify", "combined"}
        assert one.correct == (one.verdicts["mathruler"] == "correct")
        assert other.correct == (other.verdicts["combined"] == "correct")
    option = CASES.index(("\\boxed{(B) 12}", "B"))
    assert by_mathruler[option].verdicts == {
        "mathruler": "wrong",
        "math_verify": "wrong",
        "combined": "correct",
    }


def test_the_answer_is_what_the_deciding_grader_read(mathruler, combined):
    spaced = [("\\boxed {4}", "4")]
    assert grade(mathruler, spaced)[0].answer is None
    assert grade(combined, spaced)[0].answer == "4"
    assert grade(mathruler, [("x \\boxed{ a < b }", "a<b")])[0].answer == "a<b"
    assert grade(mathruler, [("nothing", "1")])[0].answer is None


def test_each_distinct_question_is_asked_once(mathruler, monkeypatch):
    asked = []
    pool = mathruler._pool

    def count(gradings):
        asked.extend(gradings)
        return type(pool).grade(pool, gradings)

    monkeypatch.setattr(pool, "grade", count)
    cases = [("\\boxed{7}", "7"), ("so \\boxed{7}", "7"), ("\\boxed{7}", "8")] * 3
    graded = grade(mathruler, cases)
    assert [one.correct for one in graded] == [True, True, False] * 3
    assert len(asked) == len(set(asked)) == 6  # two questions to three graders


def test_an_overlong_answer_is_wrong_unasked(mathruler):
    box = "1" * 1001
    (graded,) = grade(mathruler, [(f"\\boxed{{{box}}}", box)])
    assert graded.answer == box
    assert set(graded.verdicts.values()) == {"wrong"}


def test_an_empty_reference_is_never_met(mathruler):
    (graded,) = grade(mathruler, [("\\boxed{}", "")])
    assert not graded.correct


def test_a_grading_that_hangs_is_a_recorded_timeout():
    grader = AnswerGrader(grader="math_verify", deadline_seconds=0.5, num_workers=1)
    try:
        first, second = grade(grader, [("\\boxed{(x+y)^{9999}}", "x+1"), ("\\boxed{2}", "2")])
    finally:
        grader.close()
    assert (first.correct, first.verdicts["math_verify"]) == (False, "timeout")
    assert (second.correct, second.verdicts["math_verify"]) == (True, "correct")


def test_a_closed_grader_starts_again():
    grader = AnswerGrader(grader="mathruler", deadline_seconds=5.0, num_workers=1)
    assert isinstance(grader, Grader)
    for _ in range(2):
        assert grade(grader, [("\\boxed{2}", "2")])[0].correct
        grader.close()


def test_nothing_to_grade_starts_no_worker():
    grader = AnswerGrader(grader="combined", deadline_seconds=5.0, num_workers=2)
    assert grader([], []) == ()
    assert grader._pool._workers == []


def test_unequal_lengths_are_refused(mathruler):
    with pytest.raises(ValueError, match="1 problems and 2 responses"):
        mathruler([problem("1")], ["\\boxed{1}", "\\boxed{1}"])


def test_an_unknown_grader_names_the_key():
    with pytest.raises(ValueError, match=r"got 'exact'\. Set benchmark\.grader"):
        AnswerGrader(grader="exact", deadline_seconds=5.0, num_workers=1)
