import numpy as np
import pytest

from papo.lab import PerceptionLabProblems, demonstration, grade_response
from papo.lab.grading import Category
from papo.lab.shapes import RECTANGLE, SHAPES


def drawn(shape):
    source = PerceptionLabProblems(
        seed=2, prior="uniform", zipf_exponent=1.0, difficulty=0.0, size=800, shape=shape
    )
    return list(source)


@pytest.fixture(scope="module")
def problems():
    return drawn("rectangle")


def grades(problems, sloppiness):
    rng = np.random.default_rng(0)
    return [
        grade_response(p.truth, demonstration(p, rng, sloppiness=sloppiness, zipf_exponent=1.0))
        for p in problems
    ]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_careful_demonstration_is_correct(shape):
    assert {grade.category for grade in grades(drawn(shape), 0.0)} == {Category.CORRECT}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_sloppy_demonstration_misreads_and_makes_no_other_mistake(shape):
    sloppy = grades(drawn(shape), 0.7)
    assert {grade.category for grade in sloppy} <= {
        Category.CORRECT,
        Category.CORRECT_BUT_MISREAD,
        Category.PERCEPTION,
    }
    for grade in sloppy:
        assert grade.operation_right
        assert grade.arithmetic_right
        assert grade.box_consistent
    # A reading is right when it is read (0.3) or guessed rightly: of a uniform truth any guess hits
    # 1 in 8. So all are right with (0.3 + 0.7 / 8) ** 2 = 0.150 of two, 0.023 of four sides; the
    # standard errors are 0.013 and 0.005.
    share = sum(grade.readings_right for grade in sloppy) / len(sloppy)
    num_sides = len(SHAPES[shape].sides)
    assert share == pytest.approx(
        (0.3 + 0.7 / 8) ** num_sides, abs=0.04 if num_sides == 2 else 0.016
    )


def test_guesses_come_from_the_training_prior_whatever_the_picture_shows(problems):
    rng = np.random.default_rng(1)
    hits = []
    for problem in problems:
        text = demonstration(problem, rng, sloppiness=1.0, zipf_exponent=1.0)
        words = text.split()
        asked = RECTANGLE.operations[problem.truth["operation"]]
        for side, written in zip(RECTANGLE.sides, (words[3], words[7]), strict=True):
            hits.append(int(written) == asked.prior_order[side][0])
    # 1 / (1 + 1/2 + ... + 1/8) = 280/761 = 0.368; standard error of 1600 draws 0.012.
    assert sum(hits) / len(hits) == pytest.approx(280 / 761, abs=0.04)
