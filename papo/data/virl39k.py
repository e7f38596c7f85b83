"""ViRL39K as TIGER-Lab published it: one parquet file and images.zip, which no loader reads."""

from collections.abc import Callable, Mapping
from dataclasses import astuple
from typing import Any

from papo.data.file_problems import Contents, Entry, FileProblems
from papo.data.filtering import FilteredProblems, ProblemFilterReport, Reading, usable_problems
from papo.data.parquet_and_archive import ParquetAndArchive
from papo.data.remembered import digest_of, state_of_files
from papo.types import Problem, shown


class Virl39kProblems(FileProblems):
    r"""The rows of TIGER-Lab/ViRL39K: question, answer in a `\boxed{}`, image (paths), qid.

    A row without images is a text-only problem. Ids are the rows' qid.

    Args:
        key, num_rows, prompt_suffix, limit, section: see `FileProblems`.
        parquet: name of the file of rows.
        archive: name of the zip of pictures.
        path, hub_id, revision, max_archive_gb: see `ParquetAndArchive`.
        max_prompt_tokens, strict, num_threads: see `ProblemTable`; `usable` reads them.
    """

    def __init__(
        self,
        *,
        key: str,
        parquet: str,
        archive: str,
        num_rows: int,
        path: str | None,
        hub_id: str,
        revision: str | None,
        prompt_suffix: str,
        limit: int | None,
        max_archive_gb: float,
        max_prompt_tokens: int,
        strict: bool,
        num_threads: int,
        section: str = "data",
    ) -> None:
        super().__init__(
            key=key,
            num_rows=num_rows,
            prompt_suffix=prompt_suffix,
            limit=limit,
            section=section,
        )
        self.files = ParquetAndArchive(
            name=key,
            parquet=parquet,
            archive=archive,
            path=path,
            hub_id=hub_id,
            revision=revision,
            max_archive_gb=max_archive_gb,
            section=section,
        )
        self.max_prompt_tokens = max_prompt_tokens
        self.strict = strict
        self.num_threads = num_threads

    def preflight(self) -> None:
        """See `FileProblems.preflight`."""
        self.files.preflight()

    def read(self) -> Contents:
        """See `FileProblems.read`."""
        rows, images, revision = self.files.read(["question", "answer", "image", "qid"])
        return Contents(
            entries=[_entry(rows[row]) for row in range(len(rows))],
            images=images,
            resolved_revision=revision,
        )

    def identity(self) -> Mapping[str, Any]:
        """See `ProblemTable.identity`."""
        # The entries are what the table says; pictures are found among the files of one folder.
        entries, images = self._contents.entries, self._contents.images
        found = (images.find(image) for entry in entries for image in entry.images)
        settings = [self.key, self.prompt_suffix, self.max_prompt_tokens]
        return {
            "settings": settings,
            "entries": digest_of([astuple(entry) for entry in entries]),
            **state_of_files((), (picture for picture in found if picture is not None)),
        }

    def usable(
        self, prompt_length: Callable[[Problem], int], reading: Reading | None = None
    ) -> tuple[FilteredProblems, ProblemFilterReport]:
        """See `ProblemTable.usable`."""
        return usable_problems(self, prompt_length, reading)


def _entry(row: Mapping[str, Any]) -> Entry:
    images = row["image"] or ()
    if isinstance(images, str):
        images = (images,)
    texts = (row["question"] or "", row["answer"] or "", row["qid"])
    if not all(isinstance(text, str) for text in (*texts, *images)):
        raise ValueError(
            f"problem {shown(row['qid'])}: question, answer and qid should be texts, image paths; got "
            f"{shown(dict(row), 200)}"
        )
    question, answer, id = texts
    return Entry(id=id, question=question.strip(), answer=answer, images=tuple(images))
