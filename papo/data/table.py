"""A table of questions, answers and images becomes problems."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from papo.data.availability import check_hub, find_files
from papo.data.build import build_problem, checked_texts
from papo.data.cells import Cell, answer_in, cell_of, id_in
from papo.data.census import Census, note_of_markers, note_of_system_turns
from papo.data.chat import Question, question_in
from papo.data.diagram_labels import DiagramLabels
from papo.data.evidence_boxes import boxes_in
from papo.data.filtering import FilteredProblems, ProblemFilterReport, Reading, usable_problems
from papo.data.forms import Columns, columns_among
from papo.data.images import decode_image
from papo.data.problem_error import ProblemError
from papo.data.remembered import state_of_files
from papo.data.row_files import read_rows
from papo.data.rows import HubRows, Rows, folder_of_pictures, listed, path_in
from papo.data.selection import selected_rows
from papo.types import Problem, key_in


class ProblemTable:
    """The problems of one split of a data set: a local folder or file, or an id of the hub.

    Construction reads nothing; `preflight` answers within seconds whether the data can be had; the
    table is read, or downloaded, when its length or an item is first asked for. Images are decoded
    anew each time an item is read.

    Args:
        source: the name under which its problems are known.
        path: a folder or a file (see `find_files`); wins over `hub_id`.
        hub_id: data set id of the hub.
        revision: commit, branch or tag of the hub; None is its newest.
        split: which part of the data set.
        question_column: the text, one `<image>` marker per image where the picture stands, or none: then
            the pictures stand before it; or a chat (see `question_in`). `auto` recognises this column and the
            next two (papo/data/forms.py).
        answer_column: the reference answer, text or a number (see `answer_in`); a `\\boxed{}` around the
            whole of it is removed. `COLUMN.FIELD` is a field of a column of objects, of these two.
            None: the last turn of the question's chat.
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
        name: of a configuration of the hub's data set.
        filter: the values, or lists of values, that problems have in columns (see `selected_rows`).
        system_prompt: of every problem, in the place of its system's turn; empty for none; None leaves it as it is.
        boxes_column: where the evidence is (see `boxes_in`); `truth["boxes"]` of rows that say so. None: not read.
        label_boxes: finds them in the pictures of rows that do not.

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
        answer_column: str | None,
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
        name: str | None = None,
        filter: Mapping[str, Any] | None = None,
        system_prompt: str | None = None,
        boxes_column: str | None = None,
        label_boxes: DiagramLabels | None = None,
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
        self.name = name
        self.filter = dict(filter or {})
        self.system_prompt = system_prompt
        self.boxes_column = boxes_column
        self.label_boxes = label_boxes

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
        self, prompt_length: Callable[[Problem], int], reading: Reading | None = None
    ) -> tuple[FilteredProblems, ProblemFilterReport]:
        """Reads every problem once and returns those that can be trained on, with a report.

        Args:
            prompt_length: exact number of prompt tokens, image tokens included.
            reading: what is remembered of it, and who watches.

        Raises:
            ProblemError: a problem is unusable and `strict` is set.
            ValueError: no problem is left.
        """
        return usable_problems(self, prompt_length, reading)

    def identity(self) -> Mapping[str, Any] | None:
        """What its problems depend on, for `Remembered`; None where the hub does not say of which commit it is."""
        settings = {
            name: value
            for name, value in vars(self).items()
            if name in inspect.signature(ProblemTable).parameters
            and name not in ("path", "num_threads", "section", "strict", "label_boxes")
        }
        if self.path is None:
            commit = self.resolved_revision
            return None if commit is None else {**settings, "commit": commit}
        folder = self._folder or Path()
        return {**settings, **state_of_files(self.files, (folder / p for p in self._paths()))}

    def _paths(self) -> Iterator[str]:
        """The paths of all pictures, as they are written."""
        for row in self._outlines():
            yield from (p for p in row.get(self.columns.pictures or "", ()) if p is not None)
            with suppress(ProblemError):
                cell = self._cell(row, self.columns.question, "question_column")
                yield from (p for p in map(path_in, question_in(cell).pictures) if p is not None)

    def __len__(self) -> int:
        kept = len(self._kept)
        return kept if self.limit is None else min(self.limit, kept)

    def __getitem__(self, index: int) -> Problem:
        """Reads one problem and decodes its images.

        Raises:
            ProblemError: an image or text is broken, the markers do not fit the images, or the
                question or the answer is empty.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"problem {index} of {len(self)}")
        row = self._rows[self._kept[index]]
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

    @property
    def columns(self) -> Columns:
        """Which columns are read as what. Reads the table."""
        return self._columns_among(self._rows.column_names)

    @property
    def column_names(self) -> Sequence[str]:
        """All columns of the table. Reads it."""
        return self._rows.column_names

    def problem_id(self, index: int) -> str:
        """The id of the problem at `index`, without decoding its images."""
        return self._id(self._rows[self._kept[index]], index)

    @cached_property
    def census(self) -> Census:
        """What the table holds. Reads it, or downloads it, but decodes no picture.

        Raises:
            ValueError: as reading an item, where all of them fail; its question, answer and id are looked at.
        """
        added: list[bool] = []
        errors: list[ProblemError] = []
        num_pictured = num_system = 0
        for index, row in enumerate(self._outlines()):
            images = row.get(self.columns.pictures, []) if self.columns.pictures else []
            try:
                question, answer, images = self._record(row, images)
                texts = checked_texts(
                    id=self._id(row, index),
                    question=question.text,
                    answer=answer,
                    num_images=len(images),
                )
            except ProblemError as error:
                errors.append(error.of(self._numbered(index), self.source))
                num_pictured += len(images) > 0
                continue
            num_pictured += len(images) > 0
            num_system += bool(question.system)
            if images:
                added.append(texts.markers_added)
        if len(errors) == len(self):
            raise ValueError(f"no problem of {self._where} can be read; the first: {errors[0]}")
        notes = (
            *self.columns.notes(self._rows.column_names),
            *note_of_markers(added),
            *note_of_system_turns(
                num_system,
                replaced=self.system_prompt is not None,
                key=key_in(self.section, "system_prompt"),
            ),
        )
        return Census(problems=len(self), with_pictures=num_pictured, notes=notes)

    def _record(
        self, row: Mapping[str, Any], images: Sequence[Any]
    ) -> tuple[Question, str, Sequence[Any]]:
        """The question, the answer and the pictures of a row; `images` are those of its column."""
        question = question_in(self._cell(row, self.columns.question, "question_column"))
        if self.columns.answer is None:
            answer = question.answer or ""
        else:
            answer = answer_in(self._cell(row, self.columns.answer, "answer_column"))
        if question.pictures and images:
            raise ProblemError(
                "image_markers",
                f"{len(question.pictures)} pictures in the chat and {len(images)} in the column "
                f"{self.columns.pictures!r}; leave one out ({key_in(self.section, 'images_column')}=null)",
            )
        return question, answer, question.pictures or images

    def _problem(self, row: Mapping[str, Any], name: str) -> Problem:
        truth = {column: row[column] for column in self.truth_columns if column in row}
        stored = listed(row.get(self.columns.pictures)) if self.columns.pictures else []
        question, answer, images = self._record(row, stored)
        system = question.system if self.system_prompt is None else self.system_prompt
        problem = build_problem(
            id=name,
            source=self.source,
            question=question.text,
            answer=answer,
            images=images,
            read_image=lambda image: decode_image(image, self._folder),
            prompt_suffix=self.prompt_suffix,
            system_prompt=system,
            truth=truth or None,
        )
        boxes = None
        if self.boxes_column is not None:
            boxes = boxes_in(self._cell(row, self.boxes_column, "boxes_column"), problem.images)
        if boxes is None and self.label_boxes is not None:
            boxes = self.label_boxes(row, problem.images)
        return (
            problem if boxes is None else replace(problem, truth={**(truth or {}), "boxes": boxes})
        )

    def _numbered(self, index: int) -> str:
        return f"{self.split}-{self._kept[index]}"

    def _id(self, row: Mapping[str, Any], index: int) -> str:
        if self.id_column is None:
            return self._numbered(index)
        return id_in(self._cell(row, self.id_column, "id_column")) or self._numbered(index)

    def _cell(self, row: Mapping[str, Any], column: str | None, setting: str) -> Cell:
        assert column is not None, "_check_columns has found one"
        return cell_of(row, column, key=key_in(self.section, setting))

    @cached_property
    def _folder(self) -> Path | None:
        if self.path is None:
            return None
        return folder_of_pictures(self.path, self.files)

    @property
    def _where(self) -> str:
        return str(self.path or self.hub_id)

    @cached_property
    def files(self) -> Sequence[Path]:
        """The files of the table; none where it is of the hub."""
        return () if self.path is None else find_files(self.path, self.split, section=self.section)

    @cached_property
    def _rows(self) -> Rows:
        self.preflight()
        rows: Rows = read_rows(self.files, self._read) if self.files else self._hub_rows()
        if len(rows) == 0:
            raise ValueError(f"{self._where} holds no problem in split {self.split!r}")
        self._columns_among(rows.column_names).check(rows.column_names)
        return rows

    @cached_property
    def _kept(self) -> Sequence[int]:
        """The numbers of the rows that the filter leaves."""
        return selected_rows(self._rows, self.filter, key=key_in(self.section, "filter"))

    def _outlines(self) -> Iterator[Mapping[str, Any]]:
        """The rows that are read, without the bytes of pictures."""
        names = self._rows.column_names
        outlines = self._rows.outlines(self._read(names), self.columns.pictures)
        kept = iter(self._kept[: len(self)])
        wanted = next(kept, None)
        for number, row in enumerate(outlines):
            if number == wanted:
                yield row
                wanted = next(kept, None)

    def _hub_rows(self) -> HubRows:
        rows = HubRows(
            str(self.hub_id),
            name=self.name,
            revision=self.revision,
            split=self.split,
            section=self.section,
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

    def _columns_among(self, names: Sequence[str]) -> Columns:
        return columns_among(
            names,
            question=self.question_column,
            answer=self.answer_column,
            pictures=self.images_column,
            where=self._where,
            section=self.section,
        )

    def _read(self, names: Sequence[str]) -> list[str]:
        """The columns to read of a table that has these."""
        columns = self._columns_among(names)
        wanted = [
            columns.question,
            columns.answer,
            self.id_column,
            columns.pictures,
            self.boxes_column,
        ]
        wanted += self.filter
        roots = [name if name in names else name.partition(".")[0] for name in wanted if name]
        labels = () if self.label_boxes is None else self.label_boxes.columns
        return [*dict.fromkeys([*roots, *self.truth_columns, *labels])]
