"""Tables as rows, images still encoded: parquet files, JSON lines, and data sets of the hub."""

import codecs
import json
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
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
        import pyarrow
        from pyarrow import parquet

        self._tables = []
        names_of: dict[Path, list[str]] = {}
        for file in files:
            try:
                names = names_of[file] = parquet.read_schema(file).names
                wanted = [name for name in columns if name in names]
                # The columns are plain structs; what a data set library wrote about them is not needed.
                self._tables.append(
                    parquet.read_table(file, columns=wanted).replace_schema_metadata(None)
                )
            except (OSError, pyarrow.ArrowException) as error:
                raise ValueError(
                    f"{file} cannot be read as parquet: {shown(str(error), 300)}. Is the download "
                    "complete?"
                ) from error
        for column in columns:
            without = [file for file, names in names_of.items() if column not in names]
            if 0 < len(without) < len(names_of):
                having = next(file for file in names_of if file not in without)
                raise ValueError(
                    f"{having} has a column {column!r} and {without[0]} has none; the files of one split "
                    "have the same columns. Are they of one data set?"
                )
        self.column_names: Sequence[str] = [
            name for name in names_of[files[0]] if all(name in names for names in names_of.values())
        ]
        self._starts = [0, *accumulate(int(table.num_rows) for table in self._tables)]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        number = bisect_right(self._starts, index) - 1
        row = self._tables[number].slice(index - self._starts[number], 1).to_pylist()[0]
        return dict(row)


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
        row: Mapping[str, Any] = self._dataset[index].to_pylist()[0]
        return row


def _commit(checksums: Mapping[str, Any] | None) -> str | None:
    """Returns the commit in the addresses a data set was downloaded from, hf://datasets/ID@COMMIT/FILE."""
    found = re.findall(r"@([0-9a-f]{40})/", " ".join(checksums or ()))
    return found[0] if found else None


Rows = ParquetRows | JsonLinesRows | HubRows
"""An indexable table; `column_names` are those of its schema."""
