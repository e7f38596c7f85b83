"""What all data sets have in common: references lose their box, questions get the prompt."""

import pytest
from PIL import Image

from papo.data import ProblemError
from papo.data.build import build_problem, unboxed


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("\\boxed{12}", "12"),
        (" \\boxed{ \\frac{1}{2} } ", "\\frac{1}{2}"),
        ("12", "12"),
        ("\\boxed{1}, \\boxed{2}", "\\boxed{1}, \\boxed{2}"),
        ("\\boxed{1", "\\boxed{1"),
        ("\\boxed{\\{1}", "\\boxed{\\{1}"),
        ("\\boxed{{1}", "\\boxed{{1}"),
        ("x = \\boxed{1}", "x = \\boxed{1}"),
        ("\\boxed{}", ""),
        ("", ""),
    ],
)
def test_only_a_box_around_the_whole_answer_is_removed(answer, expected):
    assert unboxed(answer) == expected


def build(question, answer="1", images=(), suffix="Answer."):
    return build_problem(
        id="7",
        source="test",
        question=question,
        answer=answer,
        images=images,
        read_image=lambda colour: Image.new("RGB", (2, 2), colour),
        prompt_suffix=suffix,
    )


def test_pictures_are_read_in_their_order():
    problem = build("<image><image>?", images=("red", "blue"))
    assert [one.getpixel((0, 0)) for one in problem.images] == [(255, 0, 0), (0, 0, 255)]
    assert (problem.id, problem.source, problem.truth) == ("7", "test", None)


def test_the_prompt_is_added_once_and_only_where_there_is_one():
    assert build("Why?").question == "Why?\n\nAnswer."
    assert build("Why? Answer.").question == "Why? Answer."
    assert build("Why?", suffix="").question == "Why?"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"question": ""}, "empty_question"),
        ({"question": "?", "answer": "\\boxed{ }"}, "empty_answer"),
        ({"question": "<image>?"}, "image_markers"),
        ({"question": "<image>?", "images": ("red", "blue")}, "image_markers"),
    ],
)
def test_what_is_wrong_has_a_reason(changes, reason):
    with pytest.raises(ProblemError) as error:
        build(**changes)
    assert error.value.reason == reason
