import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from papo.lab import Category, LabReward, PerceptionLabProblems, grade_response
from papo.lab.grading import ERRORS, MAX_CHARACTERS, grade_responses, write_response
from papo.lab.shapes import SHAPES, operate
from papo.types import Problem

SCENE = {"operation": "area", "a": 7, "b": 5, "result": 35}


def response(a, b, step, result, box):
    return f"<think> a = {a} , b = {b} , {step} = {result} </think> \\boxed{{ {box} }}"


CASES = {
    "flawless": (response(7, 5, "a * b", 35, 35), Category.CORRECT),
    "the sides swapped, the product right": (
        response(5, 7, "a * b", 35, 35),
        Category.CORRECT_BUT_MISREAD,
    ),
    "misread, and the right box out of nothing": (
        response(2, 3, "a * b", 6, 35),
        Category.CORRECT_BUT_MISREAD,
    ),
    "right box after a wrong thought": (response(7, 5, "a + b", 12, 35), Category.CORRECT),
    "a misread": (response(8, 5, "a * b", 40, 40), Category.PERCEPTION),
    "b misread": (response(7, 6, "a * b", 42, 42), Category.PERCEPTION),
    "misread and the wrong step: the first failure names it": (
        response(8, 5, "a + b", 13, 13),
        Category.PERCEPTION,
    ),
    "sum instead of area": (response(7, 5, "a + b", 12, 12), Category.REASONING),
    "difference instead of area": (response(7, 5, "| a - b |", 2, 2), Category.REASONING),
    "wrong step and wrong arithmetic: the step comes first": (
        response(7, 5, "a + b", 13, 13),
        Category.REASONING,
    ),
    "7 * 5 = 36": (response(7, 5, "a * b", 36, 36), Category.CALCULATION),
    "the box is not the result": (response(7, 5, "a * b", 35, 36), Category.INCONSISTENT),
    "empty": ("", Category.FORMAT),
    "box alone": ("\\boxed{ 35 }", Category.FORMAT),
    "no box": ("<think> a = 7 , b = 5 , a * b = 35 </think>", Category.FORMAT),
    "no reading of b": ("<think> a = 7 , a * b = 35 </think> \\boxed{ 35 }", Category.FORMAT),
    "two boxes": (response(7, 5, "a * b", 35, 36) + " \\boxed{ 35 }", Category.FORMAT),
    "something after the box": (response(7, 5, "a * b", 35, 35) + " 35", Category.FORMAT),
    "something before the thought": ("a " + response(7, 5, "a * b", 35, 35), Category.FORMAT),
    "a negative number": (response(7, 5, "a * b", 35, -35), Category.FORMAT),
    "a decimal number": (response(7, 5, "a * b", 35, "35.0"), Category.FORMAT),
    "a box in digits of another script": (response(7, 5, "a * b", 35, "٣٥"), Category.FORMAT),
    "a reading in digits of another script": (response("٧", 5, "a * b", 35, 35), Category.FORMAT),
    "a huge number": (response(7, 5, "a * b", 35, "9" * 60), Category.FORMAT),
    "half a bar": (response(7, 5, "| a - b", 2, 2), Category.FORMAT),
    "no spaces": ("<think>a=7,b=5,a*b=35</think>\\boxed{35}", Category.CORRECT),
    "line breaks": (
        "<think>\na = 7 ,\nb = 5 ,\na * b = 35\n</think>\n\\boxed{ 35 }\n",
        Category.CORRECT,
    ),
}


@pytest.mark.parametrize(("text", "category"), CASES.values(), ids=CASES.keys())
def test_each_way_to_answer_has_its_category(text, category):
    assert grade_response(SCENE, text).category is category


FOUR = {"operation": "horizontal", "a": 7, "b": 5, "c": 3, "d": 2, "result": 28}


def four(readings="7 5 3 2", steps="a * c = 21 , 21 + b = 26 , 26 + d = 28", box=28):
    sides = " , ".join(f"{s} = {n}" for s, n in zip("abcd", readings.split(), strict=True))
    return f"<think> {sides} , {steps} </think> \\boxed{{ {box} }}"


CASES_OF_FOUR = {
    "flawless": (four(), Category.CORRECT),
    "two readings swapped, the answer the same": (
        four("3 5 7 2", "a * c = 21 , 21 + b = 26 , 26 + d = 28"),
        Category.CORRECT_BUT_MISREAD,
    ),
    "right box after wrong steps": (
        four(steps="a + b = 12 , 12 + c = 15 , 15 + d = 17"),
        Category.CORRECT,
    ),
    "d misread": (
        four("7 5 3 4", "a * c = 21 , 21 + b = 26 , 26 + d = 30", 30),
        Category.PERCEPTION,
    ),
    "misread and another question's steps": (
        four("7 5 3 4", "a + b = 12 , 12 + c = 15 , 15 + d = 19", 19),
        Category.PERCEPTION,
    ),
    "another question's steps": (
        four(steps="a + b = 12 , 12 + c = 15 , 15 + d = 17", box=17),
        Category.REASONING,
    ),
    "a side added twice": (
        four(steps="a * c = 21 , 21 + b = 26 , 26 + b = 31", box=31),
        Category.REASONING,
    ),
    "times instead of plus at the end": (
        four(steps="a * c = 21 , 21 + b = 26 , 26 * d = 52", box=52),
        Category.REASONING,
    ),
    "another first pair": (
        four(steps="b * c = 15 , 15 + b = 20 , 20 + d = 22", box=22),
        Category.REASONING,
    ),
    "7 * 3 = 22": (
        four(steps="a * c = 22 , 22 + b = 27 , 27 + d = 29", box=29),
        Category.CALCULATION,
    ),
    "the last step is wrong": (
        four(steps="a * c = 21 , 21 + b = 26 , 26 + d = 29", box=29),
        Category.CALCULATION,
    ),
    "goes on with another number": (
        four(steps="a * c = 21 , 22 + b = 27 , 27 + d = 29", box=29),
        Category.CALCULATION,
    ),
    "writes another number, goes on with the right one": (
        four(steps="a * c = 21 , 22 + b = 26 , 26 + d = 28", box=26),
        Category.CALCULATION,
    ),
    "the box is a result on the way": (four(box=26), Category.INCONSISTENT),
    "a step too few": (four(steps="a * c = 21 , 21 + b = 26", box=26), Category.FORMAT),
    "a step too many": (
        four(steps="a * c = 21 , 21 + b = 26 , 26 + d = 28 , 28 + d = 30"),
        Category.FORMAT,
    ),
    "sides in the other order": (
        four(steps="c * a = 21 , 21 + b = 26 , 26 + d = 28"),
        Category.FORMAT,
    ),
    "three readings": (four().replace(" d = 2 ,", ""), Category.FORMAT),
    "the other world's response": (response(7, 5, "a * b", 35, 28), Category.FORMAT),
    "no spaces": (four().replace(" ", ""), Category.CORRECT),
}


@pytest.mark.parametrize(("text", "category"), CASES_OF_FOUR.values(), ids=CASES_OF_FOUR.keys())
def test_four_readings_and_three_steps_are_graded_alike(text, category):
    assert grade_response(FOUR, text).category is category


def test_the_steps_of_four_are_judged_one_by_one():
    wrong_pair = four(steps="a * b = 35 , 35 + b = 40 , 40 + d = 42", box=42)
    grade = grade_response(FOUR, wrong_pair)
    assert (grade.readings_right, grade.operation_right, grade.arithmetic_right) == (
        True,
        False,
        True,
    )
    misread_and_jumping = four("7 5 3 9", "a * c = 21 , 21 + b = 26 , 27 + d = 36", 36)
    grade = grade_response(FOUR, misread_and_jumping)
    assert (grade.readings_right, grade.operation_right, grade.arithmetic_right) == (
        False,
        True,
        False,
    )
    assert grade.box_consistent


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_every_category_of_a_drawn_scene(shape):
    problems = PerceptionLabProblems(
        seed=4, prior="uniform", zipf_exponent=1.0, difficulty=0.0, size=60, shape=shape.name
    )
    for problem in problems:
        truth = problem.truth
        numbers = [truth[side] for side in shape.sides]
        right = write_response(truth["operation"], *numbers)
        assert grade_response(truth, right).category is Category.CORRECT
        # Twenty more at the last side changes every answer.
        misread = write_response(truth["operation"], *numbers[:-1], numbers[-1] + 20)
        assert grade_response(truth, misread).category is Category.PERCEPTION
        other = next(name for name in shape.operations if name != truth["operation"])
        if operate(other, *numbers) != truth["result"]:
            wrong = write_response(other, *numbers)
            assert grade_response(truth, wrong).category is Category.REASONING


def test_every_category_occurs_in_the_cases():
    assert {category for _, category in CASES_OF_FOUR.values()} == set(Category)
    assert {category for _, category in CASES.values()} == set(Category)


def test_the_steps_are_judged_one_by_one():
    grade = grade_response(SCENE, response(8, 5, "a + b", 14, 15))
    assert grade.category is Category.PERCEPTION
    assert not grade.readings_right
    assert not grade.operation_right
    assert not grade.arithmetic_right
    assert not grade.box_consistent
    lucky = grade_response(SCENE, response(7, 5, "a * b", 36, 35))
    assert lucky.category is Category.CORRECT
    assert lucky.readings_right
    assert lucky.operation_right
    assert not lucky.arithmetic_right
    assert not lucky.box_consistent


def naive_category(scene, a, b, step, result, box):
    """The definition, without a regular expression."""
    if box == scene["result"]:
        return "correct" if (a, b) == (scene["a"], scene["b"]) else "correct_but_misread"
    if a != scene["a"] or b != scene["b"]:
        return "perception"
    if step != scene["operation"]:
        return "reasoning"
    if result != operate(step, a, b):
        return "calculation"
    return "inconsistent"


numbers = st.integers(2, 9)
steps = st.sampled_from(["area", "sum", "difference"])
near = st.integers(0, 99)


@settings(deadline=None)
@given(numbers, numbers, steps, numbers, numbers, steps, near, near, st.booleans(), st.booleans())
def test_grades_agree_with_the_definition(
    true_a, true_b, operation, a, b, step, result, box, honest_result, honest_box
):
    scene = {
        "operation": operation,
        "a": true_a,
        "b": true_b,
        "result": operate(operation, true_a, true_b),
    }
    result = operate(step, a, b) if honest_result else result
    box = result if honest_box else box
    written = {"area": "a * b", "sum": "a + b", "difference": "| a - b |"}[step]
    grade = grade_response(scene, response(a, b, written, result, box))
    assert grade.category == naive_category(scene, a, b, step, result, box)


@settings(deadline=None)
@given(numbers, numbers, steps)
def test_the_written_response_of_a_careful_reader_is_correct(a, b, operation):
    scene = {"operation": operation, "a": a, "b": b, "result": operate(operation, a, b)}
    assert grade_response(scene, write_response(operation, a, b)).category is Category.CORRECT


@pytest.mark.parametrize(
    "text",
    [
        " " * 100_000,
        "<think> " * 20_000,
        "<think> a = " + "7" * 100_000,
        "<think>" + " " * 100_000 + "a",
        "\\boxed{ 35 } " * 10_000,
        "((((a+)+)+)+)+" * 8_000,
        "\x00\ud800" * 50_000,
        "__import__('os').system('true')",
        "<think> a = 9**9**9**9 , b = 5 , a * b = 35 </think> \\boxed{ 35 }",
        response(7, 5, "a * b", 35, 35).replace(" ", " " * 20),
    ],
)
def test_hostile_text_is_a_format_error_at_once(text):
    start = time.process_time()
    assert grade_response(SCENE, text).category is Category.FORMAT
    assert time.process_time() - start < 0.5


def test_the_longest_graded_text_is_matched_in_no_time():
    # The worst the bounded length leaves: a flawless beginning, then spaces that match nothing.
    text = (response(7, 5, "a * b", 35, 35)[:-1] + " " * MAX_CHARACTERS)[: MAX_CHARACTERS - 1] + "x"
    start = time.process_time()
    for _ in range(100):
        assert grade_response(SCENE, text).category is Category.FORMAT
    assert time.process_time() - start < 0.5


@settings(deadline=None)
@given(st.text())
def test_any_text_has_a_grade(text):
    assert grade_response(SCENE, text).category is Category.FORMAT


def scene_problem(truth=SCENE):
    return Problem(
        id="1", question="?", answer="35", images=(), source="perception_lab", truth=truth
    )


def test_the_reward_pays_for_the_boxed_answer_alone():
    texts = [text for text, _ in CASES.values()]
    rewards = LabReward()([scene_problem()] * len(texts), texts)
    paid = [c in (Category.CORRECT, Category.CORRECT_BUT_MISREAD) for _, c in CASES.values()]
    assert rewards.total.tolist() == [float(p) for p in paid]
    assert rewards.correct.tolist() == paid
    assert rewards.timeouts == 0


def test_accuracy_and_the_error_components_add_up_to_one():
    texts = [text for text, _ in CASES.values()]
    components = LabReward()([scene_problem()] * len(texts), texts).components
    assert set(components) == {
        "accuracy",
        "correct_but_misread",
        *(f"error_{error}" for error in ("perception", "reasoning", "calculation")),
        *("error_inconsistent", "error_format"),
    }
    total = components["accuracy"] + sum(components[f"error_{e}"] for e in ERRORS)
    assert total.tolist() == [1.0] * len(texts)


def test_a_problem_without_a_known_scene_names_the_config_key():
    with pytest.raises(ValueError, match="data=perception_lab"):
        LabReward()([scene_problem(truth=None)], [""])


def test_a_text_without_a_problem_is_refused():
    with pytest.raises(ValueError, match="one problem per response"):
        grade_responses([scene_problem()], ["", ""])


def test_a_drawn_problem_is_graded_against_its_own_truth():
    problem = PerceptionLabProblems(
        seed=0, prior="training", zipf_exponent=1.0, difficulty=1.0, size=1
    )[0]
    truth = problem.truth
    right = write_response(truth["operation"], truth["a"], truth["b"])
    assert LabReward()([problem], [right]).correct.all()
