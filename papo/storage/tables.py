"""The tables of a run, which grow by a row per rollout: writing, cutting back to a rollout, reading.

metrics.csv and timings.csv are numbers under names, rollouts.jsonl and evaluations.jsonl a record a line.
"""

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from papo.storage.files import CutLines, DamagedFile, cut_lines, to_disk

FAULTS = "faults.jsonl"
"""Of a run's folder: a line for each part of its objective that cannot do what its weight says."""


SAFEGUARD = "safeguard.jsonl"
"""Of a run's folder: a line for each time that its safeguard spoke or acted."""


def append_csv(path: Path, row: Mapping[str, int | float]) -> None:
    """Appends a row; the first row decides the columns, `rollout_step` comes first.

    Raises:
        ValueError: the row has other columns than the table.
    """
    columns = columns_of(path)
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if columns is None:
            columns = list(row)
            writer.writerow(columns)
        if set(columns) != set(row):
            raise ValueError(f"{path.name} has columns {columns}; got a row with {list(row)}")
        # repr gives the shortest text that reads back as the same number.
        writer.writerow([repr(row[name]) for name in columns])
        to_disk(file)


def read_numbers(path: Path, *, remedy: str) -> dict[str, tuple[float, ...]]:
    """Returns a CSV file of numbers as columns, in the order of the file; NaN and infinity are numbers.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFile: it is empty, has no row, or a row does not fit; names the line.
    """
    try:
        header, *rows = _cells(path.read_bytes().decode("utf-8")) or [[]]
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing. {remedy}") from None
    except (ValueError, csv.Error) as error:
        raise DamagedFile(f"{path} is damaged: {error}. {remedy}") from error
    if not rows:
        raise DamagedFile(f"{path} is damaged: it holds no row. {remedy}")
    numbers = []
    for line, row in enumerate(rows, start=2):
        try:
            if len(row) != len(header):
                raise ValueError(f"{len(row)} cells under {len(header)} columns")
            numbers.append([float(cell) for cell in row])
        except ValueError as error:
            raise DamagedFile(f"{path} is damaged, line {line}: {error}. {remedy}") from error
    return _by_column(header, numbers)


def read_readable(path: Path, notes: list[str]) -> dict[str, tuple[float, ...]]:
    """Returns what can be read of such a file, which a run may be writing, and notes what cannot.

    A row counts where it is whole and begins with a number; another cell that is none is NaN.
    """
    if not path.is_file():
        return {}
    try:
        text = path.read_text("utf-8", errors="replace")
        header, *rows = _cells(text, strict=False) or [[]]
    except csv.Error as error:
        notes.append(f"{path} is damaged: {error}. It was left out.")
        return {}
    whole = [row for row in rows if len(row) == len(header) and not math.isnan(_number(row[0]))]
    if len(whole) < len(rows):
        notes.append(f"Damaged rows left out of {path.name}: {len(rows) - len(whole)}.")
    return _by_column(header, [[_number(cell) for cell in row] for row in whole])


def last_row(path: Path) -> dict[str, float]:
    """Returns the last row of such a file, without what is no number; empty where there is none."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    if len(lines) < 2:
        return {}
    header, row = _cells("\n".join((lines[0], lines[-1])))
    found = {name: float(cell) for name, cell in zip(header, row, strict=True)}
    # What was not measured after this rollout is no number of JSON's.
    return {name: value for name, value in found.items() if not math.isnan(value)}


def _cells(text: str, *, strict: bool = True) -> list[list[str]]:
    return list(csv.reader(text.splitlines(), strict=strict))


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _by_column(
    header: Sequence[str], rows: Sequence[Sequence[float]]
) -> dict[str, tuple[float, ...]]:
    return {name: tuple(row[column] for row in rows) for column, name in enumerate(header)}


def append_jsonl(path: Path, record: Mapping[str, Any]) -> None:
    """Appends one record as a line of JSON."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")
        to_disk(file)


def truncate_csv(path: Path, last_step: int) -> CutLines | None:
    """Keeps the header and the whole rows of rollouts up to `last_step`; later ones are kept beside.

    Raises:
        DamagedFile: a row does not begin with the number of its rollout.
    """
    return cut_lines(path, _is_up_to(path, last_step, _step_of_row), header_lines=1)


def truncate_jsonl(path: Path, last_step: int) -> CutLines | None:
    """Keeps the whole records whose `rollout_step` is up to `last_step`; later ones are kept beside.

    Raises:
        DamagedFile: a line is no such record.
    """
    return cut_lines(path, _is_up_to(path, last_step, _step_of_record))


def first_missing_row(path: Path, last_step: int) -> int | None:
    """Returns the first rollout up to `last_step` without a row; None where all have theirs."""
    there = set()
    if path.exists():
        there = {_step_of_row(line) for line in path.read_bytes().splitlines()[1:]}
    return next((step for step in range(1, last_step + 1) if step not in there), None)


def _is_up_to(
    path: Path, last_step: int, step_of: Callable[[bytes], int]
) -> Callable[[int, bytes], bool]:
    def keeps(number: int, line: bytes) -> bool:
        try:
            return step_of(line) <= last_step
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DamagedFile(
                f"{path} is damaged, line {number + 1}: {error}. Move it away: the run then goes on "
                "with a new one."
            ) from error

    return keeps


def _step_of_row(line: bytes) -> int:
    return int(line.decode("utf-8").split(",", 1)[0])


def _step_of_record(line: bytes) -> int:
    return int(json.loads(line)["rollout_step"])


def columns_of(path: Path) -> list[str] | None:
    """Returns the columns of a table; None where it has none yet."""
    if not path.exists() or path.stat().st_size == 0:
        return None
    with path.open(encoding="utf-8", newline="") as file:
        return next(csv.reader(file))
