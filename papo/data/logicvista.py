"""LogicVista as its authors keep it: a clone of the repository Yijia-Xiao/LogicVista."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from papo.data.file_problems import Contents, Entry, FileProblems, first_existing
from papo.data.image_folder import ImageFolder
from papo.data.row_files import read_text
from papo.types import IMAGE_MARKER, key_in, shown


class LogicVistaProblems(FileProblems):
    """The problems of data/dataset.json, pictures in data/images/ beside it.

    Answers are letters, some several (`A, C`). Of the 448 entries, v1_382 has neither question nor
    answer; such entries are left out. Ids are KEY:NAME, for the entry of that name.

    Args:
        key, num_rows, prompt_suffix, limit, section: see `FileProblems`.
        path: a clone of the repository, or its folder data.

    Raises:
        ValueError: there is no path: the repository is no data set of the hub.
    """

    def __init__(
        self,
        *,
        key: str,
        num_rows: int,
        path: str | None,
        prompt_suffix: str,
        limit: int | None,
        section: str | None = None,
    ) -> None:
        super().__init__(
            key=key,
            num_rows=num_rows,
            prompt_suffix=prompt_suffix,
            limit=limit,
            section=section,
        )
        if path is None:
            raise ValueError(
                f"the benchmark {key} is read from a clone: "
                f"git clone https://github.com/Yijia-Xiao/LogicVista, then {self._path_key}=LogicVista"
            )
        self.path = Path(path).expanduser()

    def preflight(self) -> None:
        """See `FileProblems.preflight`."""
        self._files()

    def read(self) -> Contents:
        """See `FileProblems.read`."""
        file, pictures = self._files()
        try:
            table = json.loads(read_text(file))
            entries = [self._entry_of(name, row) for name, row in table.items()]
        except (ValueError, AttributeError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(
                f"{file} is not LogicVista's table, an object of objects with question, answer and "
                f"imagename: {type(error).__name__}: {shown(str(error), 300)}"
            ) from error
        return Contents(
            entries=[entry for entry in entries if entry.question or entry.answer],
            images=ImageFolder(pictures),
            resolved_revision=None,
        )

    @property
    def _path_key(self) -> str:
        return key_in(self.section, "path")

    def _files(self) -> tuple[Path, Path]:
        file = first_existing([self.path / "data" / "dataset.json", self.path / "dataset.json"])
        if file is None or not (file.parent / "images").is_dir():
            raise FileNotFoundError(
                f"the benchmark {self.key} is not in {self.path}: looked for data/dataset.json and "
                "data/images/. git clone https://github.com/Yijia-Xiao/LogicVista, then "
                f"{self._path_key}=LogicVista"
            )
        return file, file.parent / "images"

    def _entry_of(self, name: str, row: Mapping[str, Any]) -> Entry:
        question = row["question"].strip()
        return Entry(
            id=f"{self.key}:{name}",
            question=IMAGE_MARKER + question if question else "",
            answer=row["answer"].strip(),
            images=(row["imagename"].strip(),),
        )
