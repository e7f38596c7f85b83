"""What stands in a cell of a table becomes text, exactly, or is refused by name; a structure is never printed as one."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from papo.data.problem_error import ProblemError
from papo.types import shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A value, and how a message names where it stood.

    Attributes:
        value: None where the row has none.
        column: its column; `reward_model.ground_truth` is a field of a column of objects.
        key: the setting that chose the column.
    """

    value: Any
    column: str
    key: str

    def refusal(self, found: str, remedy: str) -> ProblemError:
        """Returns the error that says what stands here instead of text."""
        return ProblemError(
            "not_text", f"the column {shown(self.column)!r} holds {found}. {remedy} ({self.key}=)"
        )


def cell_of(row: Mapping[str, Any], column: str, *, key: str) -> Cell:
    """Returns what a row has in a column, or in a field of a column of objects (`COLUMN.FIELD`).

    Raises:
        ProblemError: the objects of the column have no such field.
    """
    if column in row or "." not in column:
        return Cell(value=row.get(column), column=column, key=key)
    name, *fields = column.split(".")
    value = row.get(name)
    for field in fields:
        if value is None:
            break
        if not isinstance(value, Mapping) or field not in value:
            has = ", ".join(map(str, value)) if isinstance(value, Mapping) else shown(value)
            raise Cell(value=value, column=name, key=key).refusal(
                f"no field {shown(field)!r}, only {shown(has)}", "Choose one of these"
            )
        value = value[field]
    return Cell(value=value, column=column, key=key)


def answer_in(cell: Cell) -> str:
    """Returns a reference answer, stripped; '' where there is none, which NaN means in a table of numbers.

    Raises:
        ProblemError: as `text_of`.
    """
    return text_of(cell, what="a reference answer")


def text_of(cell: Cell, *, what: str) -> str:
    """Returns text, stripped, or the digits of a number; '' where there is nothing, or NaN.

    A number is its decimal digits, as few as tell it from others: 5 and 5.0 are both `5` (tables turn whole
    numbers into floating-point ones where a row has none), 0.1 is `0.1`, 1e-7 is `0.0000001`.

    Args:
        cell: that holds it.
        what: it is, for the message.

    Raises:
        ProblemError: it is neither text nor a finite number.
    """
    value = cell.value
    if value is None or (isinstance(value, float | Decimal) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value.strip()
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    if is_number and math.isfinite(value):
        return _digits(value)
    remedy = "Write it as a response should give it, or choose another column"
    if isinstance(value, Mapping):
        fields = ", ".join(f"{cell.column}.{name}" for name in value)
        remedy = f"Choose another column, or a field: {shown(fields)}"
    raise cell.refusal(
        f"{kind_of(value)}, {shown(value)}; {what} is one text or one finite number",
        remedy,
    )


def id_in(cell: Cell) -> str | None:
    """Returns an id; None where the row has none.

    Raises:
        ProblemError: it is neither text nor a finite number.
    """
    return (cell.value if isinstance(cell.value, str) else answer_in(cell)) or None


def _digits(number: int | float | Decimal) -> str:
    if isinstance(number, int):
        return str(number)
    # Of a float, repr has the fewest digits that read back as the same number.
    text = format(Decimal(repr(number)) if isinstance(number, float) else number, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def kind_of(value: object) -> str:
    """Returns what a value is, in the words of a message."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    names = {bytes: "bytes", bool: "a truth value", int: "a number", float: "a number"}
    return names.get(type(value), f"a {type(value).__name__}")
