"""Tables as rows, images still encoded: Arrow tables, lists of objects, and data sets of the hub.

Which files make a table: papo/data/row_files.py.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

from papo.storage.hub import download_in_time
from papo.types import key_in


class TableRows:
    """Rows of Arrow tables, one after another, held as they are stored.

    Each table has types of its own: the answers of one file may be numbers and those of another text.

    Args:
        tables: the columns of them that are read.
        column_names: those that all tables have.
    """

    def __init__(self, tables: Sequence[Any], column_names: Sequence[str]) -> None:
        # The columns are plain structs; what a data set library wrote about them is not needed.
        self._tables = [_exact(table.replace_schema_metadata(None)) for table in tables]
        self.column_names = column_names
        self._starts = [0, *accumulate(int(table.num_rows) for table in self._tables)]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        number = bisect_right(self._starts, index) - 1
        row = self._tables[number].slice(index - self._starts[number], 1).to_pylist()[0]
        return dict(row)

    def outlines(self, columns: Sequence[str], pictures: str | None) -> Iterator[Mapping[str, Any]]:
        """Yields some columns of every row; of the column `pictures` a list of paths, None for bytes."""
        return chain.from_iterable(_outlines(table, columns, pictures) for table in self._tables)


class ObjectRows:
    """Rows that are objects in memory.

    Args:
        rows: of a file.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._rows = rows
        self.column_names: Sequence[str] = sorted({name for row in rows for name in row})

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self._rows[index]

    def outlines(self, columns: Sequence[str], pictures: str | None) -> Iterator[Mapping[str, Any]]:
        """See `TableRows.outlines`."""
        for row in self._rows:
            outline = {name: row[name] for name in columns if name in row}
            if pictures is not None:
                outline[pictures] = [path_in(one) for one in listed(row.get(pictures))]
            yield outline


class HubRows:
    """Rows of one split of a data set of the hub, from its cache or downloaded now.

    `resolved_revision` is the commit they are from; None where the cache does not say.

    Args:
        hub_id: data set id of the hub.
        name: of one of its configurations; None where it has one.
        revision: commit, branch or tag; None is its newest.
        split: which part of it.
        section: where these settings stand in the configuration; messages name keys of it.

    Raises:
        ValueError: it cannot be loaded; the message names the data set and the override.
    """

    def __init__(
        self,
        hub_id: str,
        *,
        revision: str | None,
        split: str,
        name: str | None = None,
        section: str = "data",
    ) -> None:
        import datasets

        try:
            dataset = download_in_time(
                hub_id,
                kind="dataset",
                revision=revision,
                load=lambda: datasets.load_dataset(
                    hub_id, name=name, revision=revision, split=split
                ),
            )
        # RuntimeError: a data set that is a script, which the library does not run.
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            raise ValueError(
                f"split {split!r} of the data set {hub_id} cannot be loaded: {error}. "
                f"Set {key_in(section, 'split')}=, {key_in(section, 'name')}= (a configuration of it) or "
                f"{key_in(section, 'revision')}=, or point {key_in(section, 'path')}=FOLDER at a local copy."
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

    def outlines(self, columns: Sequence[str], pictures: str | None) -> Iterator[Mapping[str, Any]]:
        """See `TableRows.outlines`."""
        wanted = [name for name in self.column_names if name in (*columns, pictures)]
        for table in self._dataset.select_columns(wanted).iter(batch_size=1000):
            yield from _outlines(_exact(table), columns, pictures)


Rows = TableRows | ObjectRows | HubRows
"""An indexable table; `column_names` are those of its schema."""


def listed(stored: Any) -> list[Any]:
    """Returns what a cell of pictures holds as a list: several, one, or none."""
    if stored is None or stored == "":
        return []
    return stored if isinstance(stored, list) else [stored]


def path_in(stored: Any) -> str | None:
    """Returns the path of a stored picture; None where it is bytes, or says nothing of a path."""
    if isinstance(stored, Mapping):
        stored = None if stored.get("bytes") is not None else stored.get("path")
    return stored if isinstance(stored, str) and not stored.startswith("data:") else None


def _exact(table: Any) -> Any:
    """Widens numbers of 32 bits by their decimal digits: 0.1 stays 0.1, not 0.10000000149011612."""
    import pyarrow

    for index, field in enumerate(table.schema):
        if field.type == pyarrow.float32():
            digits = table.column(index).cast(pyarrow.string())
            table = table.set_column(index, field.name, digits.cast(pyarrow.float64()))
    return table


def _outlines(table: Any, columns: Sequence[str], pictures: str | None) -> list[dict[str, Any]]:
    """See `TableRows.outlines`; the bytes of pictures are not copied."""
    names = [name for name in table.column_names if name in columns and name != pictures]
    rows = list(table.select(names).to_pylist())
    if pictures in table.column_names:
        paths = chain.from_iterable(map(_paths, table[pictures].chunks))
        rows = [{**row, pictures: found} for row, found in zip(rows, paths, strict=True)]
    return rows


def _paths(column: Any) -> list[list[str | None]]:
    """The paths of the pictures in each row of a column, None for bytes."""
    import pyarrow
    from pyarrow import compute

    try:
        counts = compute.list_value_length(column)
        pictures = column.flatten()
    except pyarrow.ArrowNotImplementedError:  # no lists
        counts = column.is_valid().cast(pyarrow.int32())
        pictures = column.drop_null()
    kind = pictures.type
    if pyarrow.types.is_struct(kind) and "path" in [field.name for field in kind]:
        pictures = compute.struct_field(pictures, "path")
    is_text = pyarrow.types.is_string(pictures.type) or pyarrow.types.is_large_string(pictures.type)
    found = iter(pictures.to_pylist() if is_text else [None] * len(pictures))
    return [[next(found) for _ in range(count or 0)] for count in counts.to_pylist()]


def _commit(checksums: Mapping[str, Any] | None) -> str | None:
    """Returns the commit in the addresses a data set was downloaded from, hf://datasets/ID@COMMIT/FILE."""
    found = re.findall(r"@([0-9a-f]{40})/", " ".join(checksums or ()))
    return found[0] if found else None


def folder_of_pictures(path: Path, files: Sequence[Path]) -> Path:
    """Returns where the paths of pictures start: the folder of the data, or of an ImageFolder's metadata."""
    if path.is_file() or files[0].stem == "metadata":
        return files[0].parent
    return path
