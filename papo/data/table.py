"""A table of questions, answers and images becomes problems."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from papo.data.availability import check_hub, find_files
from papo.data.build import build_problem, checked_texts
from papo.data.cells import Cell, answer_in, cell_of, has_system_turn, id_in, question_in
from papo.data.census import Census, note_of_markers
from papo.data.filtering import FilteredProblems, ProblemFilterReport, filter_problems
from papo.data.images import decode_image
from papo.data.problem_error import ProblemError
from papo.data.rows import HubRows, JsonLinesRows, ParquetRows, Rows, listed, parquet_columns
from papo.types import Problem, key_in, shown

_PICTURES = ("images", "image")
"""Names of the column of pictures in the field; each is found under the other."""


class ProblemTable:
    """The problems of one split of a data set: a local folder or file, or an id of the hub.

    Construction reads nothing; `preflight` answers within seconds whether the data can be had; the
    table is read, or downloaded, when its length or an item is first asked for. Images are decoded
    anew each time an item is read.

    Args:
        source: the name under which its problems are known.
        path: a folder or a .parquet or .jsonl file; wins over `hub_id`.
        hub_id: data set id of the hub.
        revision: commit, branch or tag of the hub; None is its newest.
        split: which part of the data set.
        question_column: the text, one `<image>` marker per image where the picture stands, or none: then
            the pictures stand before it; or a chat (see `question_in`).
        answer_column: the reference answer, text or a number (see `answer_in`); a `\\boxed{}` around the
            whole of it is removed. `COLUMN.FIELD` is a field of a column of objects, of these two.
        images_column: a picture or a list of them; a row without one, or with an empty list, is a text-only
            problem. None: all are. Of `images` and `image`, one is found under the name of the other.
        id_column: a stable id; rows without one are numbered.
        truth_columns: what graders may know of the picture; those the table has become `truth`.
        prompt_suffix: what every question ends with, after an empty line.
        num_rows: rows of each published split, by its name, compared where the rows come from the
            hub; a copy in `path` may hold fewer. None, or None for a split, where nothing is known.
        limit: read only the first so many problems; None reads all.
        max_prompt_tokens: longer prompts are not usable, image tokens counted.
        strict: whether an unusable problem is an error instead of being left out.
        num_threads: threads that decode images while filtering.
        section: where these settings stand in the configuration; messages name keys of it.

    Raises:
        ValueError: neither path nor hub_id is given, or a count is below 1.
    """

    def __init__(
        self,
        *,
        source: str,
        path: str | None,
        hub_id: str | None,
        revision: str | None,
        split: str,
        question_column: str,
        answer_column: str,
        images_column: str | None,
        id_column: str | None,
        truth_columns: Sequence[str],
        prompt_suffix: str,
        num_rows: Mapping[str, int | None] | None,
        limit: int | None,
        max_prompt_tokens: int,
        strict: bool,
        num_threads: int,
        section: str = "data",
    ) -> None:
        if path is None and hub_id is None:
            raise ValueError(
                f"where is the data set {source!r}? Set {key_in(section, 'path')}=FOLDER or "
                f"{key_in(section, 'hub_id')}=ID."
            )
        counts = {
            "limit": limit,
            "max_prompt_tokens": max_prompt_tokens,
            "num_threads": num_threads,
        }
        for key, count in counts.items():
            if count is not None and count < 1:
                raise ValueError(f"{key_in(section, key)} counts from 1; got {count}")
        self.source = source
        self.path = None if path is None else Path(path).expanduser()
        self.hub_id = hub_id
        self.revision = revision
        self.split = split
        self.question_column = question_column
        self.answer_column = answer_column
        self.images_column = images_column
        self.id_column = id_column
        self.truth_columns = tuple(truth_columns)
        self.prompt_suffix = prompt_suffix.strip()
        self.num_rows = dict(num_rows or {})
        self.limit = limit
        self.max_prompt_tokens = max_prompt_tokens
        self.strict = strict
        self.num_threads = num_threads
        self.section = section

    def preflight(self) -> None:
        """Returns when the data is in place or can be downloaded; reads and downloads nothing.

        Raises:
            ValueError: it cannot be had; the message names what is missing and the override.
        """
        if self.path is not None:
            find_files(self.path, self.split, section=self.section)
        elif self.hub_id is not None:
            check_hub(self.hub_id, revision=self.revision, section=self.section)

    def usable(
        self, prompt_length: Callable[[Problem], int]
    ) -> tuple[FilteredProblems, ProblemFilterReport]:
        """Reads every problem once and returns those that can be trained on, with a report.

        Args:
            prompt_length: exact number of prompt tokens, image tokens included.

        Raises:
            ProblemError: a problem is unusable and `strict` is set.
            ValueError: no problem is left.
        """
        return filter_problems(
            self,
            prompt_length=prompt_length,
            max_prompt_tokens=self.max_prompt_tokens,
            strict=self.strict,
            section=self.section,
            num_threads=self.num_threads,
        )

    def __len__(self) -> int:
        return len(self._rows) if self.limit is None else min(self.limit, len(self._rows))

    def __getitem__(self, index: int) -> Problem:
        """Reads one problem and decodes its images.

        Raises:
            ProblemError: an image or text is broken, the markers do not fit the images, or the
                question or the answer is empty.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"problem {index} of {len(self)}")
        row = self._rows[index]
        name = self._numbered(index)
        try:
            name = self._id(row, index)
            return self._problem(row, name)
        except ProblemError as error:
            raise error.of(name, self.source) from error

    @property
    def resolved_revision(self) -> str | None:
        """The commit of the hub the rows are from; None for files on the disk. Reads the table."""
        return self._rows.resolved_revision if isinstance(self._rows, HubRows) else None

    def problem_id(self, index: int) -> str:
        """The id of the problem at `index`, without decoding its images."""
        return self._id(self._rows[index], index)

    @cached_property
    def census(self) -> Census:
        """What the table holds. Reads it, or downloads it, but decodes no picture.

        Raises:
            ValueError: as reading an item, where all of them fail; its question, answer and id are looked at.
        """
        added: list[bool] = []
        errors: list[ProblemError] = []
        num_pictured = num_system = 0
        names = self._rows.column_names
        outlines = self._rows.outlines(self._columns(names), self._pictures)
        for index, row in zip(range(len(self)), outlines, strict=False):
            num_images = row.get(self._pictures, 0) if self._pictures else 0
            num_pictured += num_images > 0
            try:
                question = self._question(row)
                texts = checked_texts(
                    id=self._id(row, index),
                    question=question_in(question),
                    answer=answer_in(self._answer(row)),
                    num_images=num_images,
                )
            except ProblemError as error:
                errors.append(error.of(self._numbered(index), self.source))
                continue
            num_system += has_system_turn(question.value)
            if num_images:
                added.append(texts.markers_added)
        if len(errors) == len(self):
            raise ValueError(f"no problem of {self._where} can be read; the first: {errors[0]}")
        notes = note_of_markers(added)
        if self._pictures != self.images_column:
            notes.append(
                f"{self._where} has no column {self.images_column!r}; the pictures are read from its column "
                f"{self._pictures!r}"
            )
        elif self._pictures and (others := {*_PICTURES} & {*names} - {self._pictures}):
            notes.append(
                f"{self._where} has a column {others.pop()!r} too, which is not read; the pictures are those of "
                f"{key_in(self.section, 'images_column')}={self._pictures}"
            )
        if num_system:
            notes.append(
                f"{num_system} questions come with a system's turn, which is not shown: how to answer is said "
                f"by {key_in(self.section, 'prompt_suffix')}="
            )
        return Census(problems=len(self), with_pictures=num_pictured, notes=tuple(notes))

    def _problem(self, row: Mapping[str, Any], name: str) -> Problem:
        truth = {column: row[column] for column in self.truth_columns if column in row}
        return build_problem(
            id=name,
            source=self.source,
            question=question_in(self._question(row)),
            answer=answer_in(self._answer(row)),
            images=listed(row.get(self._pictures)) if self._pictures else (),
            read_image=lambda image: decode_image(image, self._folder),
            prompt_suffix=self.prompt_suffix,
            truth=truth or None,
        )

    def _numbered(self, index: int) -> str:
        return f"{self.split}-{index}"

    def _id(self, row: Mapping[str, Any], index: int) -> str:
        if self.id_column is None:
            return self._numbered(index)
        cell = cell_of(row, self.id_column, key=key_in(self.section, "id_column"))
        return id_in(cell) or self._numbered(index)

    def _question(self, row: Mapping[str, Any]) -> Cell:
        return cell_of(row, self.question_column, key=key_in(self.section, "question_column"))

    def _answer(self, row: Mapping[str, Any]) -> Cell:
        return cell_of(row, self.answer_column, key=key_in(self.section, "answer_column"))

    @property
    def _folder(self) -> Path | None:
        if self.path is None:
            return None
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def _where(self) -> str:
        return str(self.path or self.hub_id)

    @cached_property
    def _rows(self) -> Rows:
        self.preflight()
        rows: Rows
        if self.path is not None:
            files = find_files(self.path, self.split, section=self.section)
            if files[0].suffix == ".jsonl":
                rows = JsonLinesRows(files[0])
            else:
                rows = ParquetRows(files, self._columns(parquet_columns(files)))
        else:
            rows = self._hub_rows()
        if len(rows) == 0:
            raise ValueError(f"{self._where} holds no problem in split {self.split!r}")
        self._check_columns(rows.column_names)
        return rows

    def _hub_rows(self) -> HubRows:
        rows = HubRows(
            str(self.hub_id), revision=self.revision, split=self.split, section=self.section
        )
        published = self.num_rows.get(self.split)
        if published is not None and len(rows) != published:
            raise ValueError(
                f"split {self.split!r} of {self.hub_id} was published with {published} problems; "
                f"got {len(rows)}. Was it changed? Pin the commit that had them "
                f"({key_in(self.section, 'revision')}=) or accept these "
                f"({key_in(self.section, 'num_rows')}=null)."
            )
        return rows

    @cached_property
    def _pictures(self) -> str | None:
        """The column of pictures that the table has; None where there are to be none."""
        return self._pictures_among(self._rows.column_names)

    def _pictures_among(self, names: Sequence[str]) -> str | None:
        candidates = [self.images_column]
        if self.images_column in _PICTURES:
            candidates += _PICTURES
        return next((name for name in candidates if name in names), self.images_column)

    def _columns(self, names: Sequence[str]) -> list[str]:
        """The columns to read of a table that has these."""
        wanted = [self.question_column, self.answer_column, self.id_column]
        roots = [name if name in names else name.partition(".")[0] for name in wanted if name]
        pictures = self._pictures_among(names)
        return [*roots, *([pictures] if pictures else []), *self.truth_columns]

    def _check_columns(self, names: Sequence[str]) -> None:
        def refuse(setting: str, column: str, remedy: str) -> None:
            raise ValueError(
                f"{self._where} has no column {column!r}, only {shown(', '.join(names), 300)}. Set "
                f"{key_in(self.section, setting)}={remedy}"
            )

        for setting, column in (
            ("question_column", self.question_column),
            ("answer_column", self.answer_column),
        ):
            if column not in names and column.partition(".")[0] not in names:
                refuse(setting, column, "")
        pictures = self._pictures_among(names)
        if pictures is not None and pictures not in names:
            refuse(
                "images_column",
                pictures,
                f" to that of the pictures, or {key_in(self.section, 'images_column')}=null where there are none",
            )
