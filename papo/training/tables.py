"""Tables that grow by a row per rollout and can be cut back to a rollout."""

import csv
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from papo.storage.files import CutLines, DamagedFile, cut_lines


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
        _to_disk(file)


def append_jsonl(path: Path, record: Mapping[str, Any]) -> None:
    """Appends one record as a line of JSON."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")
        _to_disk(file)


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


def _to_disk(file: Any) -> None:
    # A checkpoint must never survive a power cut that its table rows did not.
    file.flush()
    os.fsync(file.fileno())
