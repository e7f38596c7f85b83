"""Tables that grow by a row per rollout and can be cut back to a rollout."""

import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from papo.files import write_atomically


def append_csv(path: Path, row: Mapping[str, int | float]) -> None:
    """Appends a row; the first row decides the columns, `rollout_step` comes first.

    Raises:
        ValueError: the row has other columns than the table.
    """
    columns = _columns(path)
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


def truncate_csv(path: Path, last_step: int) -> None:
    """Keeps the header and the whole rows of rollouts up to `last_step`."""
    if path.exists():
        header, *rows = _whole_lines(path) or [""]
        kept = [row for row in rows if int(row.split(",", 1)[0]) <= last_step]
        write_atomically(path, _joined([header, *kept] if header else []))


def truncate_jsonl(path: Path, last_step: int) -> None:
    """Keeps the whole records whose `rollout_step` is up to `last_step`."""
    if path.exists():
        lines = _whole_lines(path)
        kept = [line for line in lines if json.loads(line)["rollout_step"] <= last_step]
        write_atomically(path, _joined(kept))


def _columns(path: Path) -> list[str] | None:
    if not path.exists() or path.stat().st_size == 0:
        return None
    with path.open(encoding="utf-8", newline="") as file:
        return next(csv.reader(file))


def _whole_lines(path: Path) -> list[str]:
    """The lines that end in a line break: a killed run may leave half of one, even half a character."""
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    return whole.decode("utf-8").split("\n") if whole else []


def _joined(lines: list[str]) -> str:
    return "".join(line + "\n" for line in lines)


def _to_disk(file: Any) -> None:
    # A checkpoint must never survive a power cut that its table rows did not.
    file.flush()
    os.fsync(file.fileno())
