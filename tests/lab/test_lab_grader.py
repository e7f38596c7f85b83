"""The lab's grader tells the evaluation what its reward tells the training."""

import pytest

from papo.lab import Category, LabGrader, LabReward, PerceptionLabProblems, held_out_set
from papo.lab import held_out_sets as both_sets
from papo.lab.grading import write_response
from papo.types import Grader, Problem

LAB = PerceptionLabProblems(seed=3, prior="uniform", zipf_exponent=1.0, difficulty=0.5, size=20)


def responses(problem):
    """One response of every category, by its category."""
    truth = problem.truth
    operation, a, b, result = (truth[name] for name in ("operation", "a", "b", "result"))
    right = write_response(operation, a, b)
    return {
        Category.CORRECT: right,
        Category.CORRECT_BUT_MISREAD: right.replace(f"a = {a} ,", f"a = {a + 10} ,", 1),
        Category.PERCEPTION: write_response(operation, a + 20, b),
        Category.INCONSISTENT: right.replace(f"{{ {result} }}", f"{{ {result + 1} }}"),
        Category.FORMAT: f"\\boxed{{ {result} }}",
    }


def test_verdicts_are_categories_and_right_boxes_count():
    grader = LabGrader()
    assert isinstance(grader, Grader)
    for problem in LAB:
        texts = responses(problem)
        graded = grader([problem] * len(texts), list(texts.values()))
        assert [one.verdicts for one in graded] == [{"lab": category} for category in texts]
        assert [one.correct for one in graded] == [True, True, False, False, False]
        assert graded[0].answer == graded[4].answer == problem.answer
        assert graded[3].answer == str(problem.truth["result"] + 1)


def test_it_agrees_with_the_reward():
    problems = [problem for problem in LAB for _ in range(5)]
    texts = [text for problem in LAB for text in responses(problem).values()]
    graded = LabGrader()(problems, texts)
    assert [one.correct for one in graded] == LabReward()(problems, texts).correct.tolist()


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("\\boxed{ 3 } \\boxed{ 4 }", "4"),
        ("\\boxed{3", None),
        ("3", None),
        ("\\boxed{}", ""),
        ("x" * 1000 + "\\boxed{3}", "3"),
        ("", None),
    ],
)
def test_the_answer_is_the_last_box(text, answer):
    (graded,) = LabGrader()([LAB[0]], [text])
    assert graded.answer == answer
    assert not graded.correct
    assert graded.verdicts == {"lab": "format"}


def test_a_problem_of_unknown_truth_is_refused():
    problem = Problem(id="x", question="?", answer="1", images=(), source="other")
    with pytest.raises(ValueError, match="carries none"):
        LabGrader()([problem], ["\\boxed{1}"])


def test_a_held_out_set_is_that_of_the_training_report():
    sets = both_sets(zipf_exponent=1.0, difficulty=1.0, size=12)
    for name, expected in sets.items():
        problems = held_out_set(name=name, zipf_exponent=1.0, difficulty=1.0, size=12, limit=None)
        assert [one.id for one in problems] == [one.id for one in expected]
        assert problems[3].images[0].tobytes() == expected[3].images[0].tobytes()
        first = held_out_set(name=name, zipf_exponent=1.0, difficulty=1.0, size=12, limit=5)
        assert [one.id for one in first] == [expected[index].id for index in range(5)]


def test_an_unknown_held_out_set_and_an_empty_limit_are_refused():
    settings = {"zipf_exponent": 1.0, "difficulty": 1.0, "size": 12}
    with pytest.raises(ValueError, match="training prior, counter-prior; got 'test'"):
        held_out_set(name="test", limit=None, **settings)
    with pytest.raises(ValueError, match=r"benchmark\.limit counts from 1; got 0"):
        held_out_set(name="training prior", limit=0, **settings)
