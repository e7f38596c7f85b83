"""A table of questions, answers and images becomes problems."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from papo.data.availability import check_hub, find_files
from papo.data.build import build_problem
from papo.data.filtering import FilteredProblems, ProblemFilterReport, filter_problems
from papo.data.images import decode_image
from papo.data.problem_error import ProblemError
from papo.data.rows import HubRows, JsonLinesRows, ParquetRows, Rows
from papo.types import Problem, key_in, shown


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
        question_column: the text, one `<image>` marker per image where the picture stands.
        answer_column: the reference answer; a `\\boxed{}` around the whole of it is removed.
        images_column: a picture or a list of them; None or an empty list is a text-only problem.
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
        images_column: str,
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
        name = self.problem_id(index)
        try:
            return self._problem(row, name)
        except ProblemError as error:
            raise error.of(name, self.source) from error

    @property
    def resolved_revision(self) -> str | None:
        """The commit of the hub the rows are from; None for files on the disk. Reads the table."""
        return self._rows.resolved_revision if isinstance(self._rows, HubRows) else None

    def problem_id(self, index: int) -> str:
        """The id of the problem at `index`, without decoding its images."""
        known = None
        if self.id_column is not None and self.id_column in self._rows.column_names:
            known = self._rows[index].get(self.id_column)
        return f"{self.split}-{index}" if known is None else str(known)

    def _problem(self, row: Mapping[str, Any], name: str) -> Problem:
        stored = row.get(self.images_column)
        if stored is None:
            stored = []
        elif not isinstance(stored, list):
            stored = [stored]
        truth = {column: row[column] for column in self.truth_columns if column in row}
        return build_problem(
            id=name,
            source=self.source,
            question=_text(row.get(self.question_column)),
            answer=_text(row.get(self.answer_column)),
            images=stored,
            read_image=lambda image: decode_image(image, self._folder),
            prompt_suffix=self.prompt_suffix,
            truth=truth or None,
        )

    @property
    def _folder(self) -> Path | None:
        if self.path is None:
            return None
        return self.path if self.path.is_dir() else self.path.parent

    @cached_property
    def _rows(self) -> Rows:
        self.preflight()
        columns = [
            self.question_column,
            self.answer_column,
            self.images_column,
            *self.truth_columns,
        ]
        if self.id_column is not None:
            columns.append(self.id_column)
        rows: Rows
        if self.path is not None:
            files = find_files(self.path, self.split, section=self.section)
            if files[0].suffix == ".jsonl":
                rows = JsonLinesRows(files[0])
            else:
                rows = ParquetRows(files, columns)
        else:
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
        if len(rows) == 0:
            raise ValueError(f"{self.path or self.hub_id} holds no problem in split {self.split!r}")
        for key, column in (
            ("question_column", self.question_column),
            ("answer_column", self.answer_column),
        ):
            if column not in rows.column_names:
                raise ValueError(
                    f"{self.path or self.hub_id} has no column {column!r}, only "
                    f"{shown(', '.join(rows.column_names), 300)}. Set {key_in(self.section, key)}="
                )
        return rows


def _text(value: Any) -> str:
    # JSON answers may be numbers.
    return "" if value is None else str(value).strip()
