"""Exact grading: where a response went wrong, read off its text and the scene's known truth.

The response grammar is ``<think> a = 7 , b = 5 , a * b = 35 </think> \\boxed{ 35 }``; the middle
step is ``a * b`` (area), ``a + b`` (sum) or ``| a - b |`` (difference).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch

from papo.lab.scene import Operation, operate
from papo.types import Problem, Rewards

STEPS: Mapping[Operation, str] = {"area": "a * b", "sum": "a + b", "difference": "| a - b |"}
"""How a response writes each operation."""

MAX_CHARACTERS = 256
"""A longer response cannot follow the grammar (at most about 70 characters, spaces included)."""


class Category(StrEnum):
    """What became of a response; every response has exactly one.

    FORMAT: not of the grammar, so nothing can be read off it (no credit, whatever is boxed).
    CORRECT: the boxed answer and both readings are right.
    CORRECT_BUT_MISREAD: the boxed answer is right although a reading is wrong: luck.
    The rest have a wrong boxed answer and are named after the *first* step that failed:
    PERCEPTION (a or b is not what the picture shows), REASONING (the wrong operation for the
    question), CALCULATION (wrong arithmetic on the written numbers), INCONSISTENT (the box does not
    repeat the result of the thought).
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
        readings_right: both written numbers are those of the picture.
        operation_right: the written step is the one the question asks for.
        arithmetic_right: the written result follows from the written numbers and step.
        box_consistent: the boxed number is the written result.
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


def _pattern(text: str) -> str:
    """Returns a regular expression for `text` that is indifferent to the spaces between words."""
    return r"\s*".join(re.escape(word) for word in text.split())


# [0-9], not \d, which also matches other scripts; the few digits keep int() cheap. No quantifier
# is nested, and the text is bounded, so matching hostile text takes microseconds.
_NUMBER = "([0-9]{1,4})"
_STEP = "|".join(f"(?P<{name}>{_pattern(step)})" for name, step in STEPS.items())
_RESPONSE = re.compile(
    r"\s*".join(
        [
            "<think>",
            *("a", "=", _NUMBER, ","),
            *("b", "=", _NUMBER, ","),
            f"(?:{_STEP})",
            *("=", "(?P<result>[0-9]{1,4})"),
            "</think>",
            *(r"\\boxed\{", "(?P<box>[0-9]{1,4})", r"\}"),
        ]
    )
)


def write_response(operation: Operation, a: int, b: int) -> str:
    """Returns the flawless response of someone who read a and b."""
    result = operate(operation, a, b)
    step = f"{STEPS[operation]} = {result}"
    return f"<think> a = {a} , b = {b} , {step} </think> \\boxed{{ {result} }}"


def grade_response(truth: Mapping[str, Any], text: str) -> Grade:
    """Returns the grade of one response to the scene of `truth` (`Problem.truth` of the lab).

    Precedence: format; then a right box (correct, or correct but misread); then the first failing
    step in the order perception, reasoning, calculation, inconsistent. Spaces between words are
    free; anything before, after or between that is not of the grammar is a format error. Time is
    linear in the length of the text.
    """
    match = _RESPONSE.fullmatch(text.strip()) if len(text) <= MAX_CHARACTERS else None
    if match is None:
        return Grade(category=Category.FORMAT)
    a, b = int(match[1]), int(match[2])
    result, box = int(match["result"]), int(match["box"])
    operation = next(name for name in STEPS if match[name] is not None)
    readings_right = (a, b) == (truth["a"], truth["b"])
    operation_right = operation == truth["operation"]
    arithmetic_right = result == operate(operation, a, b)
    box_consistent = box == result
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
        if truth is None or not {"operation", "a", "b", "result"} <= truth.keys():
            raise ValueError(
                f"the lab's reward grades drawn scenes of known truth; problem {problem.id!r} of "
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
    regular expression on bounded text, in this process.
    """

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
        )
