"""Which rows of a table are problems, by what stands in their columns; nothing is evaluated."""

from collections.abc import Mapping, Sequence
from typing import Any

from papo.data.cells import Cell, cell_of, text_of
from papo.data.forms import is_among
from papo.data.rows import Rows
from papo.types import shown

_VALUES_SHOWN = 10


def selected_rows(rows: Rows, wanted: Mapping[str, Any], *, key: str) -> Sequence[int]:
    """Returns the numbers of the rows in which each column has its value, or one of its list of values.

    Numbers are compared by their digits, so that 3 is also the text `3` of a CSV file, and null is an empty cell.

    Args:
        rows: all of them.
        wanted: values, or lists of values, by the name of a column or of a field (`COLUMN.FIELD`).
        key: of the configuration; messages name it.

    Raises:
        ValueError: a column is not there, or no row is left.
    """
    if not wanted:
        return range(len(rows))
    for column in wanted:
        if not is_among(column, rows.column_names):
            raise ValueError(
                f"{key} names the column {column!r}, and there are only "
                f"{shown(', '.join(rows.column_names), 300)}"
            )
    values = {
        column: {_text(value, column, key) for value in (one if isinstance(one, list) else [one])}
        for column, one in wanted.items()
    }
    columns = [name if name in rows.column_names else name.partition(".")[0] for name in wanted]
    kept: list[int] = []
    seen: dict[str, dict[str | None, None]] = {column: {} for column in wanted}
    for number, row in enumerate(rows.outlines(columns, None)):
        found = {
            column: _text(cell_of(row, column, key=key).value, column, key) for column in wanted
        }
        for column, text in found.items():
            seen[column].setdefault(text)
        if all(found[column] in values[column] for column in wanted):
            kept.append(number)
    if not kept:
        there = "; ".join(
            f"{column} holds {shown(', '.join(map(str, list(texts)[:_VALUES_SHOWN])), 200)}"
            for column, texts in seen.items()
        )
        raise ValueError(f"{key}={shown(dict(wanted))} leaves no problem of {len(rows)}: {there}")
    return kept


def _text(value: Any, column: str, key: str) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return str(value).lower()
    return text_of(Cell(value=value, column=column, key=key), what="what is filtered by")
