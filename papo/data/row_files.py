"""Files become rows: Parquet, Arrow, JSON lines, a list in JSON, CSV."""

import codecs
import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from papo.data.rows import ObjectRows, TableRows
from papo.types import shown

Choice = Callable[[Sequence[str]], Sequence[str]]
"""Which of the columns of a table are read."""


def read_rows(files: Sequence[Path], columns: Choice) -> TableRows | ObjectRows:
    """Returns the rows of the files of one split, read by what they are.

    Raises:
        ValueError: a file is damaged or not what its name says; names it, and the line.
    """
    kind = files[0].suffix
    if kind in (".parquet", ".arrow"):
        return (parquet_rows if kind == ".parquet" else arrow_rows)(files, columns)
    return ObjectRows({".jsonl": json_lines, ".json": json_list, ".csv": csv_rows}[kind](files[0]))


def parquet_rows(files: Sequence[Path], columns: Choice) -> TableRows:
    """Returns the rows of parquet files, one after another.

    Raises:
        ValueError: a file is not parquet, or a column that is read stands in some of the files alone.
    """
    from pyarrow import parquet

    names_of: dict[Path, list[str]] = {}
    for file in files:
        with _reading(file, "parquet"):
            names_of[file] = parquet.read_schema(file).names
    common, wanted = _common_and_wanted(names_of, columns)
    tables = []
    for file, names in names_of.items():
        with _reading(file, "parquet"):
            own = [name for name in wanted if name in names]
            tables.append(parquet.read_table(file, columns=own))
    return TableRows(tables, common)


def arrow_rows(files: Sequence[Path], columns: Choice) -> TableRows:
    """Returns the rows of Arrow files, as `datasets` saves them; they stay on the disk until they are read.

    Raises:
        ValueError: as `parquet_rows`.
    """
    tables = {}
    for file in files:
        with _reading(file, "Arrow"):
            tables[file] = _arrow_table(file)
    common, wanted = _common_and_wanted(
        {file: table.column_names for file, table in tables.items()}, columns
    )
    return TableRows(
        [
            table.select([name for name in wanted if name in table.column_names])
            for table in tables.values()
        ],
        common,
    )


def _arrow_table(file: Path) -> Any:
    import pyarrow
    from pyarrow import ipc

    source = pyarrow.memory_map(str(file))
    try:
        return ipc.open_stream(source).read_all()
    except pyarrow.ArrowInvalid:  # of the two kinds of file, the other
        return ipc.open_file(pyarrow.memory_map(str(file))).read_all()


def _common_and_wanted(
    names_of: Mapping[Path, Sequence[str]], columns: Choice
) -> tuple[list[str], Sequence[str]]:
    first, *others = names_of.values()
    common = [name for name in first if all(name in names for names in others)]
    wanted = columns(common)
    for column in wanted:
        without = [file for file, names in names_of.items() if column not in names]
        if 0 < len(without) < len(names_of):
            having = next(file for file in names_of if file not in without)
            raise ValueError(
                f"{having} has a column {column!r} and {without[0]} has none; the files of one split "
                "have the same columns. Are they of one data set?"
            )
    return common, wanted


@contextmanager
def _reading(file: Path, kind: str) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (OSError, pyarrow.ArrowException) as error:
        raise ValueError(
            f"{file} cannot be read as {kind}: {shown(str(error), 300)}. Is the download complete?"
        ) from error


def json_lines(file: Path) -> list[Mapping[str, Any]]:
    """Returns the objects of a file that holds one JSON object per line; blank lines are skipped.

    Raises:
        ValueError: it is no text in UTF-8, or a line is not a JSON object; names file and line.
    """
    rows: list[Mapping[str, Any]] = []
    # Not splitlines: it also cuts at U+2028 and the like, which JSON allows inside of a text.
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file}, line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{file}, line {number} is not a JSON object but {type(row).__name__}")
        rows.append(row)
    return rows


def json_list(file: Path) -> list[Mapping[str, Any]]:
    """Returns the objects of a file that is one list in JSON.

    Raises:
        ValueError: it is no text in UTF-8, no JSON, or no list of objects; names the file.
    """
    try:
        rows = json.loads(read_text(file))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(
            f"{file} is not JSON: {error}. A file of an object per line is named .jsonl"
        ) from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(
            f"{file} is no list of JSON objects, one for each problem: {shown(rows, 200)}"
        )
    return rows


def csv_rows(file: Path) -> list[Mapping[str, Any]]:
    """Returns the rows of a CSV file with a line of names; cells are text, and empty ones None.

    Raises:
        ValueError: it is no text in UTF-8, a name stands twice, or a row does not fit; names file and line.
    """
    reader = csv.reader(io.StringIO(read_text(file), newline=""), strict=True)
    rows: list[Mapping[str, Any]] = []
    try:
        names = next(reader, [])
        if len(set(names)) < len(names) or "" in names:
            raise ValueError(
                f"a column has no name, or that of another: {shown(', '.join(names), 200)}"
            )
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(names):
                raise ValueError(
                    f"{len(cells)} cells under {len(names)} columns; a text with a comma stands in quotes"
                )
            rows.append({name: cell or None for name, cell in zip(names, cells, strict=True)})
    except (ValueError, csv.Error) as error:
        raise ValueError(
            f"{file} cannot be read as CSV: line {reader.line_num}: {error}"
        ) from error
    return rows


def read_text(file: Path) -> str:
    """Returns the text of a file in UTF-8, with or without a mark of its byte order.

    Raises:
        ValueError: it is in another encoding; names it where it can be told, and what makes it UTF-8.
    """
    encoded = file.read_bytes()
    wide = encoded.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in encoded[:1000]
    try:
        if not wide:
            return encoded.decode("utf-8-sig")
        place = "it looks like UTF-16"
    except UnicodeDecodeError as error:
        line = encoded.count(b"\n", 0, error.start) + 1
        place = f"line {line} holds the byte 0x{encoded[error.start]:02x}, which belongs to no character"
    raise ValueError(
        f"{file} is no text in UTF-8: {place}. Write it anew in UTF-8, e.g. "
        f"iconv -f {'UTF-16' if wide else 'LATIN1'} -t UTF-8 {file.name} > NEW."
    )
