"""Tables as rows, images still encoded: parquet files, JSON lines, and data sets of the hub."""

import codecs
import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

from papo.hub import download_in_time
from papo.types import key_in, shown


class ParquetRows:
    """Rows of parquet files, one after another, held in memory as they are stored.

    Each file has types of its own: the answers of one may be numbers and those of another text.
    `column_names` are the columns that all files have.

    Args:
        files: parquet files.
        columns: read these only, where the files have them.

    Raises:
        ValueError: a file is not parquet, or a column of `columns` stands in some of the files alone.
    """

    def __init__(self, files: Sequence[Path], columns: Sequence[str]) -> None:
        from pyarrow import parquet

        names_of = _parquet_columns(files)
        self._tables = []
        for file, names in names_of.items():
            wanted = [name for name in columns if name in names]
            # The columns are plain structs; what a data set library wrote about them is not needed.
            with _reading(file):
                table = parquet.read_table(file, columns=wanted).replace_schema_metadata(None)
            self._tables.append(_exact(table))
        for column in columns:
            without = [file for file, names in names_of.items() if column not in names]
            if 0 < len(without) < len(names_of):
                having = next(file for file in names_of if file not in without)
                raise ValueError(
                    f"{having} has a column {column!r} and {without[0]} has none; the files of one split "
                    "have the same columns. Are they of one data set?"
                )
        self.column_names: Sequence[str] = _in_all(names_of)
        self._starts = [0, *accumulate(int(table.num_rows) for table in self._tables)]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        number = bisect_right(self._starts, index) - 1
        row = self._tables[number].slice(index - self._starts[number], 1).to_pylist()[0]
        return dict(row)

    def outlines(self, columns: Sequence[str], counted: str | None) -> Iterator[Mapping[str, Any]]:
        """Yields some columns of every row; of the column `counted`, how many things stand in it."""
        return chain.from_iterable(_outlines(table, columns, counted) for table in self._tables)


def parquet_columns(files: Sequence[Path]) -> list[str]:
    """Returns the columns that all of the files have.

    Raises:
        ValueError: a file is not parquet.
    """
    return _in_all(_parquet_columns(files))


def _parquet_columns(files: Sequence[Path]) -> dict[Path, list[str]]:
    from pyarrow import parquet

    found: dict[Path, list[str]] = {}
    for file in files:
        with _reading(file):
            found[file] = parquet.read_schema(file).names
    return found


def _in_all(names_of: Mapping[Path, Sequence[str]]) -> list[str]:
    first, *others = names_of.values()
    return [name for name in first if all(name in names for names in others)]


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (OSError, pyarrow.ArrowException) as error:
        raise ValueError(
            f"{file} cannot be read as parquet: {shown(str(error), 300)}. Is the download complete?"
        ) from error


def _exact(table: Any) -> Any:
    """Widens numbers of 32 bits by their decimal digits: 0.1 stays 0.1, not 0.10000000149011612."""
    import pyarrow

    for index, field in enumerate(table.schema):
        if field.type == pyarrow.float32():
            digits = table.column(index).cast(pyarrow.string())
            table = table.set_column(index, field.name, digits.cast(pyarrow.float64()))
    return table


def _outlines(table: Any, columns: Sequence[str], counted: str | None) -> list[dict[str, Any]]:
    """See `ParquetRows.outlines`; the bytes of pictures are not copied."""
    import pyarrow
    from pyarrow import compute

    table = table.select([name for name in table.column_names if name in (*columns, counted)])
    if counted in table.column_names:
        column = table[counted]
        try:
            counts = compute.list_value_length(column)
        except pyarrow.ArrowNotImplementedError:  # no lists
            counts = compute.is_valid(column).cast(pyarrow.int32())
        index = table.column_names.index(counted)
        table = table.set_column(index, counted, compute.fill_null(counts, 0))
    return list(table.to_pylist())


class JsonLinesRows:
    """Rows of a file that holds one JSON object per line; blank lines are skipped.

    Raises:
        ValueError: it is no text in UTF-8, or a line is not a JSON object; the message names file and
            line.
    """

    def __init__(self, file: Path) -> None:
        self._rows: list[Mapping[str, Any]] = []
        # Not splitlines: it also cuts at U+2028 and the like, which JSON allows inside of a text.
        for number, line in enumerate(read_text(file).split("\n"), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{file}, line {number} is not JSON: {error}") from error
            if not isinstance(row, dict):
                raise ValueError(
                    f"{file}, line {number} is not a JSON object but {type(row).__name__}"
                )
            self._rows.append(row)
        self.column_names: Sequence[str] = sorted({name for row in self._rows for name in row})

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self._rows[index]

    def outlines(self, columns: Sequence[str], counted: str | None) -> Iterator[Mapping[str, Any]]:
        """See `ParquetRows.outlines`."""
        for row in self._rows:
            outline = {name: row[name] for name in columns if name in row}
            if counted is not None:
                outline[counted] = len(listed(row.get(counted)))
            yield outline


def listed(stored: Any) -> list[Any]:
    """Returns what a cell of pictures holds as a list: several, one, or none."""
    if stored is None:
        return []
    return stored if isinstance(stored, list) else [stored]


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


class HubRows:
    """Rows of one split of a data set of the hub, from its cache or downloaded now.

    `resolved_revision` is the commit they are from; None where the cache does not say.

    Raises:
        ValueError: it cannot be loaded; the message names the data set and the override.
    """

    def __init__(
        self, hub_id: str, *, revision: str | None, split: str, section: str = "data"
    ) -> None:
        import datasets

        try:
            dataset = download_in_time(
                hub_id,
                kind="dataset",
                revision=revision,
                load=lambda: datasets.load_dataset(hub_id, revision=revision, split=split),
            )
        # RuntimeError: a data set that is a script, which the library does not run.
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            raise ValueError(
                f"split {split!r} of the data set {hub_id} cannot be loaded: {error}. "
                f"Set {key_in(section, 'split')}= or {key_in(section, 'revision')}=, or point "
                f"{key_in(section, 'path')}=FOLDER at a local copy."
            ) from error
        # Arrow rows keep images encoded: they are decoded one by one, where a broken one is noticed.
        self._dataset = dataset.with_format("arrow")
        self.column_names: Sequence[str] = self._dataset.column_names
        self.resolved_revision = _commit(dataset.info.download_checksums)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        row: Mapping[str, Any] = _exact(self._dataset[index]).to_pylist()[0]
        return row

    def outlines(self, columns: Sequence[str], counted: str | None) -> Iterator[Mapping[str, Any]]:
        """See `ParquetRows.outlines`."""
        wanted = [name for name in self.column_names if name in (*columns, counted)]
        for table in self._dataset.select_columns(wanted).iter(batch_size=1000):
            yield from _outlines(_exact(table), columns, counted)


def _commit(checksums: Mapping[str, Any] | None) -> str | None:
    """Returns the commit in the addresses a data set was downloaded from, hf://datasets/ID@COMMIT/FILE."""
    found = re.findall(r"@([0-9a-f]{40})/", " ".join(checksums or ()))
    return found[0] if found else None


Rows = ParquetRows | JsonLinesRows | HubRows
"""An indexable table; `column_names` are those of its schema."""
