"""Where the evidence of a problem is, where its row says so: boxes of its one picture, in pixels."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from PIL.Image import Image

from papo.data.cells import Cell
from papo.data.problem_error import ProblemError
from papo.types import shown

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom exclusive."""


def boxes_in(cell: Cell, images: Sequence[Image]) -> dict[str, Box] | None:
    """Returns the boxes that a row names, their fractions rounded outwards; None where it names none.

    Args:
        cell: a list of boxes, or an object of them by name; one that is None is left out, because rows of one Parquet
            table have the same names.
        images: the pictures of the problem.

    Raises:
        ProblemError: there is not one picture, or a box is not inside of it, or all of it. Nothing is cut off at
            the edges: boxes of another picture, or in thousandths of this one, would hide something else.
    """
    stored = cell.value
    named = dict(enumerate(stored)) if isinstance(stored, list | tuple) else stored
    if named is not None and not isinstance(named, Mapping):
        raise _refusal(cell, stored, "a list of boxes, or an object of them by name")
    boxes = {name: box for name, box in (named or {}).items() if box is not None}
    if not boxes:
        return None
    if len(images) != 1:
        raise _refusal(cell, stored, f"boxes of one picture; the problem has {len(images)}")
    return {str(name): _box_of(cell, box, images[0].size) for name, box in boxes.items()}


def _box_of(cell: Cell, stored: Any, size: tuple[int, int]) -> Box:
    width, height = size
    numbers = stored if isinstance(stored, list | tuple) and len(stored) == 4 else ()
    if numbers and all(_is_finite(number) for number in numbers):
        left, top = math.floor(numbers[0]), math.floor(numbers[1])
        right, bottom = math.ceil(numbers[2]), math.ceil(numbers[3])
        inside = 0 <= left < right <= width and 0 <= top < bottom <= height
        if inside and (right - left, bottom - top) != size:
            return left, top, right, bottom
    raise _refusal(
        cell,
        stored,
        f"boxes [left, top, right, bottom] in pixels of its picture of {width} x {height}, inside of it and not "
        "all of it",
    )


def _is_finite(number: Any) -> bool:
    return type(number) in (int, float) and math.isfinite(number)


def _refusal(cell: Cell, found: Any, rule: str) -> ProblemError:
    return ProblemError(
        "broken_boxes",
        f"the column {shown(cell.column)!r} holds {rule}; got {shown(found)}. Mend it, or read none ({cell.key}=null)",
    )
