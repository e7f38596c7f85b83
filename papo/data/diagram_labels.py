"""Boxes of what is written in a diagram, where an annotation says how much that is: Geometry3K.

Its logic forms name the points and values of a diagram, not where their labels stand. Labels are small pieces of ink
that touch no line; the annotation tells whether all their letters were found.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL.Image import Image

from papo.data.evidence_boxes import Box
from papo.data.problem_error import ProblemError
from papo.types import shown

_VALUE = re.compile(r"Equals\(((?:LengthOf|MeasureOf)\(.+\)), ?(.+)\)")
_OF_ANOTHER = re.compile(r"(?:LengthOf|MeasureOf)\((?!angle )")
_UNWRITTEN = re.compile(r"\\[a-z]+|[{}() ]|MeasureOf|angle")
_POINT = re.compile(r"(?<![A-Za-z_])[A-Z](?![A-Za-z_(])")


class DiagramLabels:
    """The boxes of all labels of a diagram; None where the annotation has more letters than were found.

    Lengths are shares of the picture's longer side.

    Args:
        facts_column: the logic forms of the diagram, e.g. `Equals(LengthOf(Line(T, R)), x+21)`; rows without have no
            boxes.
        positions_column: of a copy that knows where the points are, name -> [x, y] in pixels (`point_positions` of
            InterGPS's logic_form.json): a square around each is a box too, its letter in it.
        point_side: of that square.
        ink_below: grey levels (0 black, 255 white) that are ink.
        largest: a piece of ink with a longer side is a line.
        smallest: a label that is lower is a dot.
        gap: pieces of ink that are no further apart along a line of text are one label.
        margin: what a box leaves around its ink.

    Raises:
        ValueError: an impossible setting.
    """

    def __init__(
        self,
        *,
        facts_column: str,
        positions_column: str | None,
        point_side: float,
        ink_below: int,
        largest: float,
        smallest: float,
        gap: float,
        margin: float,
    ) -> None:
        shares = {"point_side": point_side, "largest": largest, "smallest": smallest, "gap": gap}
        for name, share in {**shares, "margin": margin}.items():
            if not 0 <= share < 1 or (share == 0 and name != "margin"):
                raise ValueError(
                    f"{name} of label_boxes is a share of a picture's side; got {share}"
                )
        if not 0 < ink_below < 256:
            raise ValueError(f"ink_below of label_boxes is a grey level; got {ink_below}")
        self.facts_column = facts_column
        self.positions_column = positions_column
        self.point_side = point_side
        self.ink_below = ink_below
        self.largest = largest
        self.smallest = smallest
        self.gap = gap
        self.margin = margin

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it reads."""
        return (self.facts_column, *filter(None, [self.positions_column]))

    def __call__(self, row: Mapping[str, Any], images: Sequence[Image]) -> dict[str, Box] | None:
        """Returns `label_0`, ... and `point_A`, ...; None where not all labels are known.

        Raises:
            ProblemError: the position of a point is not in the picture.
        """
        facts = row.get(self.facts_column)
        if not facts or len(images) != 1:
            return None
        points, values = written_in(facts)
        squares = self._squares(row, images)
        found = {
            box: num_pieces
            for box, num_pieces in self._labels(images[0])
            if not any(_holds(square, box) for square in squares.values())
        }
        # A square holds the letter of its point, whether the letter touches a line or not.
        unplaced = sum(f"point_{one}" not in squares for one in points)
        if not points | values or sum(found.values()) < unplaced + sum(map(_num_letters, values)):
            return None
        return {**squares, **{f"label_{number}": box for number, box in enumerate(found)}}

    def _squares(self, row: Mapping[str, Any], images: Sequence[Image]) -> dict[str, Box]:
        """The squares around the points whose positions the row has, as far as they are in the picture."""
        if self.positions_column is None or not isinstance(row.get(self.positions_column), Mapping):
            return {}
        width, height = images[0].size
        half = self.point_side * max(width, height) / 2
        squares = {}
        for name, position in row[self.positions_column].items():
            if position is None:  # a point of another row of the same Parquet table
                continue
            if not _is_inside(position, images[0].size):
                raise ProblemError(
                    "broken_boxes",
                    f"the column {shown(self.positions_column)!r} holds the position of each point, [x, y] in pixels of "
                    f"its picture of {width} x {height}; got {shown(name)}: {shown(position)}",
                )
            x, y = position
            squares[f"point_{name}"] = (
                *(max(0, math.floor(x - half)), max(0, math.floor(y - half))),
                *(min(width, math.ceil(x + half)), min(height, math.ceil(y + half))),
            )
        return squares

    def _labels(self, image: Image) -> list[tuple[Box, int]]:
        """The small pieces of ink, those of one label together, and how many these are."""
        from scipy import ndimage

        side = max(image.size)
        pieces, _ = ndimage.label(np.asarray(image.convert("L")) < self.ink_below, np.ones((3, 3)))
        places = ndimage.find_objects(pieces)
        small = [
            number
            for number, one in enumerate(places, 1)
            if max(_sides(one)) <= self.largest * side
        ]
        is_small = np.zeros(len(places) + 1, dtype=bool)
        is_small[small] = True
        ink = is_small[pieces]
        reach = max(1, round(self.gap * side / 2))
        near = (2 * max(1, reach // 2) + 1, 2 * reach + 1)
        labels, _ = ndimage.label(ndimage.maximum_filter(ink.view(np.uint8), size=near))
        counts = Counter(
            int(labels[places[number - 1]][pieces[places[number - 1]] == number][0])
            for number in small
        )
        margin = round(self.margin * side)
        return [
            (_grown(one, margin, image.size), counts[label])
            for label, one in enumerate(ndimage.find_objects(labels * ink), 1)
            if _sides(one)[0] >= self.smallest * side
        ]


def written_in(facts: Sequence[str]) -> tuple[set[str], set[tuple[str, str]]]:
    """Returns the points of logic forms, and the values that a diagram shows: of what, and which.

    `Equals(LengthOf(Line(A, B)), 3x-4)` shows a value, `Equals(LengthOf(Line(A, B)), LengthOf(Line(C, D)))` does not;
    `MeasureOf(angle 2)` is the number of an angle, which is written in it.
    """
    points: set[str] = set()
    values = set()
    for fact in facts:
        value = _VALUE.fullmatch(fact)
        if value and not _OF_ANOTHER.match(value[2]):
            values.add((value[1], value[2]))
            fact = value[1]
        points.update(_POINT.findall(fact))
    return points, values


def _num_letters(value: tuple[str, str]) -> int:
    """Of what a diagram shows of a value: letters, digits and signs, and the degrees of an angle; of LaTeX, at least."""
    what, written = value
    in_degrees = not what.startswith("LengthOf") and "angle" not in written
    return len(_UNWRITTEN.sub("", written)) + in_degrees


Slices = tuple[slice, slice]
"""Rows and columns of a picture."""


def _sides(piece: Slices) -> tuple[int, int]:
    rows, columns = piece
    return rows.stop - rows.start, columns.stop - columns.start


def _grown(piece: Slices, margin: int, size: tuple[int, int]) -> Box:
    rows, columns = piece
    return (
        *(max(0, columns.start - margin), max(0, rows.start - margin)),
        *(min(size[0], columns.stop + margin), min(size[1], rows.stop + margin)),
    )


def _holds(outer: Box, inner: Box) -> bool:
    return (
        outer[0] <= inner[0]
        and outer[1] <= inner[1]
        and inner[2] <= outer[2]
        and inner[3] <= outer[3]
    )


def _is_inside(position: Any, size: tuple[int, int]) -> bool:
    return (
        isinstance(position, list | tuple)
        and len(position) == 2
        and all(
            type(at) in (int, float) and 0 <= at <= end
            for at, end in zip(position, size, strict=True)
        )
    )
