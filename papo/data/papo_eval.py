r"""The nine evaluation sets of PAPO-Galaxy/PAPO_eval: ShareGPT rows in parquet, pictures in a zip."""

import re
from collections.abc import Mapping
from typing import Any

from papo.data.file_problems import Contents, Entry, FileProblems
from papo.data.parquet_and_archive import ParquetAndArchive
from papo.types import IMAGE_MARKER, shown

_PROMPT_START = "You first think through "
# The sentence the authors' prompts end with, with and without the last full stop.
_PROMPT = re.compile(re.escape(_PROMPT_START) + r".*\\boxed\{\}\.?\s*", re.DOTALL)


class PapoEvalProblems(FileProblems):
    """One split of PAPO_eval, with our prompt in the place of the one its rows carry.

    Ids are KEY:ROW. The reference is the assistant's turn.

    Args:
        key, num_rows, prompt_suffix, limit, section: see `FileProblems`.
        split: name of the split; its rows stand in data/SPLIT-00000-of-00001.parquet.
        archive: name of the zip of its pictures, at the top of the data set.
        path, hub_id, revision, max_archive_gb: see `ParquetAndArchive`.
    """

    def __init__(
        self,
        *,
        key: str,
        split: str,
        archive: str,
        num_rows: int,
        path: str | None,
        hub_id: str,
        revision: str | None,
        prompt_suffix: str,
        limit: int | None,
        max_archive_gb: float,
        section: str | None = None,
    ) -> None:
        super().__init__(
            key=key,
            num_rows=num_rows,
            prompt_suffix=prompt_suffix,
            limit=limit,
            section=section,
        )
        self.files = ParquetAndArchive(
            name=f"the benchmark {key}",
            parquet=f"data/{split}-00000-of-00001.parquet",
            archive=archive,
            path=path,
            hub_id=hub_id,
            revision=revision,
            max_archive_gb=max_archive_gb,
            section=self.section,
        )

    def preflight(self) -> None:
        """See `FileProblems.preflight`."""
        self.files.preflight()

    def read(self) -> Contents:
        """See `FileProblems.read`."""
        rows, images, revision = self.files.read(["messages", "images"])
        return Contents(
            entries=[_entry(rows[row], f"{self.key}:{row}") for row in range(len(rows))],
            images=images,
            resolved_revision=revision,
        )


def _entry(row: Mapping[str, Any], id: str) -> Entry:
    try:
        text_of = {turn["role"]: turn["content"] for turn in row["messages"]}
        question, answer = text_of["user"], text_of["assistant"]
        images = tuple(row["images"] or ())
        if not all(isinstance(text, str) for text in (question, answer, *images)):
            raise TypeError("text was expected")
    except (TypeError, KeyError) as error:
        raise ValueError(
            f"problem {id}: messages should be a list of turns with role (user, assistant) and "
            f"content, images a list of paths; got {shown(dict(row), 200)}"
        ) from error
    return Entry(id=id, question=_question(question, len(images)), answer=answer, images=images)


def _question(prompt: str, num_images: int) -> str:
    """Returns the question of a prompt, with the markers of its images first.

    A prompt without markers gets one for each image. Nothing but markers is a question too: in
    MMMU-Pro it is written in the picture.
    """
    question = prompt.strip()
    start = question.rfind(_PROMPT_START)
    if start >= 0 and _PROMPT.fullmatch(question, start):
        question = question[:start].rstrip()
    num_leading = 0
    while question.startswith(IMAGE_MARKER):
        question = question[len(IMAGE_MARKER) :].lstrip()
        num_leading += 1
    if num_leading + question.count(IMAGE_MARKER) == 0:
        num_leading = num_images
    return IMAGE_MARKER * num_leading + question
