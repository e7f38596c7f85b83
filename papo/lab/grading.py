"""Exact grading: where a response went wrong, read off its text and the scene's known truth.

The response grammar is ``<think> a = 7 , b = 5 , a * b = 35 </think> \\boxed{ 35 }``: a reading of
every side, as many steps as the question needs, the box. The first step combines two sides, each
further one the number that the last one gave and a side: ``a + b = 12 , 12 + c = 15 , ...``.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import combinations
from typing import Any

import torch

from papo.lab.scene import scene_numbers
from papo.lab.shapes import OPERATORS, SHAPES, Shape, results, shape_of
from papo.types import Problem, Rewards, shown

MAX_CHARACTERS = 256
"""A longer response cannot follow the grammar (at most about 120 characters, spaces included)."""


class Category(StrEnum):
    """What became of a response; every response has exactly one.

    FORMAT: not of the grammar, so nothing can be read off it (no credit, whatever is boxed).
    CORRECT: the boxed answer and all readings are right.
    CORRECT_BUT_MISREAD: the boxed answer is right although a reading is wrong: luck.
    The rest have a wrong boxed answer and are named after the *first* step that failed:
    PERCEPTION (a reading is not what the picture shows), REASONING (a step has the wrong operator or
    side for the question), CALCULATION (wrong arithmetic on the written numbers, or a step that
    goes on with another number than the last one gave), INCONSISTENT (the box does not repeat the
    result of the thought).
    """

    CORRECT = "correct"
    CORRECT_BUT_MISREAD = "correct_but_misread"
    PERCEPTION = "perception"
    REASONING = "reasoning"
    CALCULATION = "calculation"
    INCONSISTENT = "inconsistent"
    FORMAT = "format"


ERRORS = tuple(c for c in Category if c not in (Category.CORRECT, Category.CORRECT_BUT_MISREAD))
"""The categories whose boxed answer earns nothing; their shares and the accuracy add up to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """The verdict on one response; the four steps are False where the format failed.

    Attributes:
        category: see `Category`.
        readings_right: all written numbers are those of the picture.
        operation_right: the written steps are those the question asks for.
        arithmetic_right: every written result follows from the written numbers and steps.
        box_consistent: the boxed number is the last written result.
    """

    category: Category
    readings_right: bool = False
    operation_right: bool = False
    arithmetic_right: bool = False
    box_consistent: bool = False

    @property
    def answer_right(self) -> bool:
        """True where the boxed answer is right, by luck or not: what the reward pays for."""
        return self.category in (Category.CORRECT, Category.CORRECT_BUT_MISREAD)


def to_plain(grade: Grade) -> dict[str, Any]:
    """A grade as other ranks receive it."""
    return {**asdict(grade), "category": grade.category.value}


def from_plain(values: Mapping[str, Any]) -> Grade:
    """Reads `to_plain` back."""
    return Grade(**{**values, "category": Category(values["category"])})


def _pattern(form: str, left: str, right: str) -> str:
    """Returns the pattern of a step, indifferent to the spaces between words."""
    operands = iter((left, right))
    return r"\s*".join(next(operands) if w == "{}" else re.escape(w) for w in form.split())


# [0-9], not \d, which also matches other scripts; the few digits keep int() cheap. No quantifier
# is nested, and the text is bounded, so matching hostile text takes microseconds.
_NUMBER = "[0-9]{1,4}"
_STEP = re.compile(r"\|?(\w+)([*+-])(\w+)\|?")


def _grammar(shape: Shape) -> re.Pattern[str]:
    """Returns the pattern of a response; its groups are the readings, (step, result) ..., the box."""
    asked = shape.operations.values()
    forms = [
        form
        for symbol, (form, _) in OPERATORS.items()
        if any(symbol == used for one in asked for used, _ in one.steps)
    ]
    pairs = list(combinations(shape.sides, 2))
    words = [
        "<think>",
        *(word for side in shape.sides for word in (side, "=", f"({_NUMBER})", ",")),
    ]
    for index in range(len(shape.sides) - 1):
        operands = pairs if index == 0 else [(_NUMBER, side) for side in shape.sides]
        step = "|".join(_pattern(form, *two) for form in forms for two in operands)
        words += [*([","] if index else []), f"({step})", "=", f"({_NUMBER})"]
    words += ["</think>", r"\\boxed\{", f"({_NUMBER})", r"\}"]
    return re.compile(r"\s*".join(words))


_GRAMMARS: Mapping[str, re.Pattern[str]] = {name: _grammar(one) for name, one in SHAPES.items()}


def write_response(operation: str, *numbers: int) -> str:
    """Returns the flawless response of someone who read these numbers, of all sides in order."""
    shape = shape_of(operation)
    asked = shape.operations[operation]
    readings = [f"{side} = {number}" for side, number in zip(shape.sides, numbers, strict=True)]
    steps, left = [], asked.first
    for (symbol, side), result in zip(asked.steps, results(operation, *numbers), strict=True):
        steps.append(f"{OPERATORS[symbol][0].format(left, side)} = {result}")
        left = str(result)
    return f"<think> {' , '.join(readings + steps)} </think> \\boxed{{ {left} }}"


def grade_response(truth: Mapping[str, Any], text: str) -> Grade:
    """Returns the grade of one response to the scene of `truth` (`Problem.truth` of the lab).

    Precedence: format; then a right box (correct, or correct but misread); then the first failing
    step in the order perception, reasoning, calculation, inconsistent. Spaces between words are
    free; anything before, after or between that is not of the grammar is a format error. Time is
    linear in the length of the text.
    """
    shape = shape_of(truth["operation"])
    asked = shape.operations[truth["operation"]]
    match = _GRAMMARS[shape.name].fullmatch(text.strip()) if len(text) <= MAX_CHARACTERS else None
    if match is None:
        return Grade(category=Category.FORMAT)
    written = match.groups()
    num_sides = len(shape.sides)
    readings = {s: int(number) for s, number in zip(shape.sides, written[:num_sides], strict=True)}
    box = int(written[-1])
    readings_right = all(readings[side] == truth[side] for side in shape.sides)
    operation_right = arithmetic_right = True
    last: int | None = None
    for index, (symbol, side) in enumerate(asked.steps):
        step, result = written[num_sides + 2 * index : num_sides + 2 * index + 2]
        parts = _STEP.fullmatch("".join(step.split()))
        assert parts is not None, "the grammar matches nothing else"
        left, written_symbol, right = parts.groups()
        operation_right &= (written_symbol, right) == (symbol, side)
        if last is None:
            operation_right &= left == asked.first
            last = readings[left]
        else:
            arithmetic_right &= int(left) == last
        arithmetic_right &= int(result) == OPERATORS[written_symbol][1](last, readings[right])
        last = int(result)
    box_consistent = box == last
    if box == truth["result"]:
        category = Category.CORRECT if readings_right else Category.CORRECT_BUT_MISREAD
    elif not readings_right:
        category = Category.PERCEPTION
    elif not operation_right:
        category = Category.REASONING
    elif not arithmetic_right:
        category = Category.CALCULATION
    else:
        category = Category.INCONSISTENT
    return Grade(
        category=category,
        readings_right=readings_right,
        operation_right=operation_right,
        arithmetic_right=arithmetic_right,
        box_consistent=box_consistent,
    )


def misread_spans(truth: Mapping[str, Any], text: str) -> tuple[tuple[int, int], ...]:
    """Returns where a response says of a side what the picture does not: `a = 7`, as [start, end) of its characters.

    Nothing of what is not of the grammar.
    """
    shape = shape_of(truth["operation"])
    start = len(text) - len(text.lstrip())
    match = _GRAMMARS[shape.name].fullmatch(text.strip()) if len(text) <= MAX_CHARACTERS else None
    if match is None:
        return ()
    return tuple(
        (start + match.string.rindex(side, 0, match.start(place)), start + match.end(place))
        for place, side in enumerate(shape.sides, start=1)
        if int(match[place]) != truth[side]
    )


def grade_responses(problems: Sequence[Problem], texts: Sequence[str]) -> list[Grade]:
    """Returns one grade per response; `problems` repeats each problem once per response.

    Raises:
        ValueError: the lengths differ, or a problem is not a PerceptionLab scene.
    """
    if len(problems) != len(texts):
        raise ValueError(
            f"grading needs one problem per response; got {len(problems)} problems "
            f"for {len(texts)} responses"
        )
    grades = []
    for problem, text in zip(problems, texts, strict=True):
        truth = problem.truth
        if truth is None or scene_numbers(truth) is None:
            raise ValueError(
                f"the lab's reward grades drawn scenes of known truth; problem {shown(problem.id)!r} of "
                f"{problem.source!r} carries none. Set data=perception_lab, or another reward."
            )
        grades.append(grade_response(truth, text))
    return grades


class LabReward:
    """R = 1 where the response follows the grammar and its boxed answer is right (luck counts), else 0.

    A right box outside the grammar earns nothing: paying for it, training soon drops the written
    readings and keeps the box, and what it read can no longer be graded.

    Components: `accuracy`, then 0/1 per rollout for each `error_*` category and
    `correct_but_misread`; `accuracy` and the errors add up to 1. Never times out: grading is a
    regular expression on bounded text, in this process. Readings that are wrong are named (`Rewards.flawed`).
    """

    flags_claims = True

    def __call__(self, problems: Sequence[Problem], texts: Sequence[str]) -> Rewards:
        grades = grade_responses(problems, texts)
        correct = torch.tensor([grade.answer_right for grade in grades], dtype=torch.bool)

        def share(category: Category) -> torch.Tensor:
            return torch.tensor([float(grade.category is category) for grade in grades])

        return Rewards(
            total=correct.float(),
            correct=correct,
            components={
                "accuracy": correct.float(),
                **{f"error_{category}": share(category) for category in ERRORS},
                "correct_but_misread": share(Category.CORRECT_BUT_MISREAD),
            },
            flawed=tuple(
                misread_spans(problem.truth or {}, text)
                for problem, text in zip(problems, texts, strict=True)
            ),
        )
