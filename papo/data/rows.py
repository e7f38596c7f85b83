"""Tables as rows, images still encoded: parquet files, JSON lines, and data sets of the hub."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class ParquetRows:
    """Rows of parquet files, one after another, held in memory as they are stored.

    Args:
        files: parquet files of one schema.
        columns: read these only, where the files have them.

    Raises:
        ValueError: a file is not parquet.
    """

    def __init__(self, files: Sequence[Path], columns: Sequence[str]) -> None:
        import pyarrow
        from pyarrow import parquet

        tables = []
        for file in files:
            try:
                names = parquet.read_schema(file).names
                wanted = [name for name in columns if name in names]
                # The columns are plain structs; what a data set library wrote about them is not needed.
                tables.append(
                    parquet.read_table(file, columns=wanted).replace_schema_metadata(None)
                )
            except (OSError, pyarrow.ArrowException) as error:
                raise ValueError(
                    f"{file} cannot be read as parquet: {error}. Is the download complete?"
                ) from error
        self.column_names: Sequence[str] = names
        self._table = pyarrow.concat_tables(tables, promote_options="default")

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        row: Mapping[str, Any] = self._table.slice(index, 1).to_pylist()[0]
        return row


class JsonLinesRows:
    """Rows of a file that holds one JSON object per line; blank lines are skipped.

    Raises:
        ValueError: a line is not a JSON object; the message names file and line.
    """

    def __init__(self, file: Path) -> None:
        self._rows: list[Mapping[str, Any]] = []
        # Not splitlines: it also cuts at U+2028 and the like, which JSON allows inside of a text.
        for number, line in enumerate(file.read_text("utf-8").split("\n"), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
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


class HubRows:
    """Rows of one split of a data set of the hub, from its cache or downloaded now.

    `resolved_revision` is the commit they are from; None where the cache does not say.

    Raises:
        ValueError: it cannot be loaded; the message names the data set and the override.
    """

    def __init__(self, hub_id: str, *, revision: str | None, split: str) -> None:
        import datasets

        try:
            dataset = datasets.load_dataset(hub_id, revision=revision, split=split)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            raise ValueError(
                f"split {split!r} of the data set {hub_id} cannot be loaded: {error}. "
                "Set data.split= or data.revision=, or point data.path=FOLDER at a local copy."
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
