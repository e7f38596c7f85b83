"""CSV that is safe to open in a spreadsheet."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Returns rows as CSV.

    Names of runs, arms and benchmarks come from outside. A spreadsheet runs a cell that begins like a formula
    (owasp.org/www-community/attacks/CSV_Injection), so such text, numbers aside, gets an apostrophe
    in front.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([_harmless(cell) for cell in row] for row in rows)
    return buffer.getvalue()


def csv_records(records: Sequence[Mapping[str, Any]]) -> str:
    """Returns records as CSV under the names that any of them has; a cell is empty where a record lacks it."""
    columns = list(dict.fromkeys(name for record in records for name in record))
    return csv_text([columns, *([record.get(name) for name in columns] for record in records)])


def _harmless(cell: Any) -> Any:
    if not isinstance(cell, str) or not cell.startswith(_FORMULA_STARTS):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell
