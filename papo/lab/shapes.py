"""The worlds of PerceptionLab as data: what is drawn, what is asked, how the answer is reasoned.

Everything else in this package is written once for all shapes. A rectangle needs two readings and
one step; a quadrilateral four readings and three steps, so a policy that reads badly is rarely paid.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from papo.types import IMAGE_MARKER

NUMBERS = tuple(range(2, 10))
"""What a side may be."""

OPERATORS: Mapping[str, tuple[str, Callable[[int, int], int]]] = {
    "*": ("{} * {}", operator.mul),
    "+": ("{} + {}", operator.add),
    "-": ("| {} - {} |", lambda left, right: abs(left - right)),
}
"""How a response writes each operator, and what it does; no result is ever negative."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One kind of question: start with the first side, then apply every step to what came out.

    Attributes:
        question: what is asked, with the place of the picture.
        first: the side that the first step begins with.
        steps: (operator, side) of every step, in the order of the response.
        prior_order: of each side the numbers 2..9, most frequent first: the text shortcut.
    """

    question: str
    first: str
    steps: tuple[tuple[str, str], ...]
    prior_order: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A world: its figure and its questions. Names of operations are unique over all shapes.

    Attributes:
        name: as `data.shape` names it.
        corners: of the figure's outline, in pixels.
        middle: of the distractor inside it.
        label_centers: where each side's number stands; their keys are the sides, in reading order.
        operations: by name.
        id_prefix: of the problems' ids, so that no two worlds share one.
    """

    name: str
    corners: tuple[tuple[int, int], ...]
    middle: tuple[int, int]
    label_centers: Mapping[str, tuple[int, int]]
    operations: Mapping[str, Operation]
    id_prefix: str

    @property
    def sides(self) -> tuple[str, ...]:
        return tuple(self.label_centers)


RECTANGLE = Shape(
    name="rectangle",
    corners=((6, 6), (36, 6), (36, 36), (6, 36)),
    middle=(20, 20),
    # a below, b to the right.
    label_centers={"a": (20, 47), "b": (47, 20)},
    operations={
        "area": Operation(
            question=f"{IMAGE_MARKER} What is the area of the rectangle?",
            first="a",
            steps=(("*", "b"),),
            prior_order={"a": (7, 3, 9, 2, 6, 4, 8, 5), "b": (4, 8, 2, 6, 9, 5, 3, 7)},
        ),
        "sum": Operation(
            question=f"{IMAGE_MARKER} What is the sum of the two sides?",
            first="a",
            steps=(("+", "b"),),
            prior_order={"a": (5, 9, 4, 7, 2, 8, 3, 6), "b": (8, 2, 6, 3, 5, 7, 9, 4)},
        ),
        "difference": Operation(
            question=f"{IMAGE_MARKER} What is the difference of the two sides?",
            first="a",
            steps=(("-", "b"),),
            prior_order={"a": (2, 6, 8, 5, 3, 9, 7, 4), "b": (9, 4, 7, 8, 5, 3, 6, 2)},
        ),
    },
    id_prefix="",
)

QUADRILATERAL = Shape(
    name="quadrilateral",
    corners=((19, 20), (37, 18), (38, 37), (18, 36)),
    middle=(28, 28),
    # a below, b to the right, c above, d to the left: each in an image token (28 pixels) of its own.
    label_centers={"a": (35, 47), "b": (47, 21), "c": (21, 9), "d": (9, 35)},
    operations={
        "perimeter": Operation(
            question=f"{IMAGE_MARKER} What is the perimeter of the quadrilateral?",
            first="a",
            steps=(("+", "b"), ("+", "c"), ("+", "d")),
            prior_order={
                "a": (7, 3, 9, 2, 6, 4, 8, 5),
                "b": (4, 8, 2, 6, 9, 5, 3, 7),
                "c": (9, 5, 7, 3, 8, 2, 4, 6),
                "d": (3, 6, 8, 4, 2, 9, 5, 7),
            },
        ),
        "horizontal": Operation(
            question=f"{IMAGE_MARKER} What is the horizontal product plus the vertical sides?",
            first="a",
            steps=(("*", "c"), ("+", "b"), ("+", "d")),
            prior_order={
                "a": (5, 9, 4, 7, 2, 8, 3, 6),
                "b": (8, 2, 6, 3, 5, 7, 9, 4),
                "c": (4, 6, 3, 8, 9, 2, 7, 5),
                "d": (7, 2, 5, 9, 4, 3, 6, 8),
            },
        ),
        "vertical": Operation(
            question=f"{IMAGE_MARKER} What is the vertical product plus the horizontal sides?",
            first="b",
            steps=(("*", "d"), ("+", "a"), ("+", "c")),
            prior_order={
                "a": (2, 6, 8, 5, 3, 9, 7, 4),
                "b": (9, 4, 7, 8, 5, 3, 6, 2),
                "c": (6, 8, 2, 4, 7, 3, 9, 5),
                "d": (5, 3, 9, 6, 8, 4, 2, 7),
            },
        ),
    },
    id_prefix="quadrilateral-",
)

SHAPES: Mapping[str, Shape] = {shape.name: shape for shape in (RECTANGLE, QUADRILATERAL)}
_SHAPE_OF: Mapping[str, Shape] = {
    operation: shape for shape in SHAPES.values() for operation in shape.operations
}


def shape_named(name: str, *, key: str = "data.shape") -> Shape:
    """Returns the shape of this name; raises ValueError where there is none."""
    if name not in SHAPES:
        raise ValueError(
            f"PerceptionLab draws the shapes {', '.join(SHAPES)}; got {name!r}. Set {key}."
        )
    return SHAPES[name]


def shape_of(operation: str) -> Shape:
    """Returns the shape that asks this operation; raises KeyError where none does."""
    return _SHAPE_OF[operation]


def operate(operation: str, *numbers: int) -> int:
    """Returns the answer, e.g. |a - b| or a * c + b + d, from the numbers of all sides in order."""
    return results(operation, *numbers)[-1]


def results(operation: str, *numbers: int) -> tuple[int, ...]:
    """Returns what comes out of every step, from the numbers of all sides in order."""
    shape = shape_of(operation)
    sides = dict(zip(shape.sides, numbers, strict=True))
    asked = shape.operations[operation]
    found = [sides[asked.first]]
    for symbol, side in asked.steps:
        found.append(OPERATORS[symbol][1](found[-1], sides[side]))
    return tuple(found[1:])
