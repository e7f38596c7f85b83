"""Problems that are written in files as text and paths of pictures: counted and checked first."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from papo.data.build import build_problem
from papo.data.census import Census, note_of_markers
from papo.data.image_folder import ImageFolder
from papo.data.images import decode_image
from papo.data.problem_error import ProblemError
from papo.types import IMAGE_MARKER, Problem, key_in, shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One problem as it stands in the files: `images` are paths as they were written."""

    id: str
    question: str
    answer: str
    images: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What the files hold, and the commit of the hub they are from; None for files on the disk."""

    entries: Sequence[Entry]
    images: ImageFolder
    resolved_revision: str | None


class FileProblems(ABC):
    """Problems in files. Construction reads nothing; `preflight` answers within seconds.

    The files are read, or downloaded, when the length or an item is first asked for; then the
    number of problems is compared with `num_rows` and every picture is looked for. Pictures are
    decoded anew each time an item is read.

    Args:
        key: name of the benchmark; `Problem.source`, and what its ids start with.
        num_rows: how many problems the files must hold.
        prompt_suffix: what every question ends with, after an empty line.
        limit: read only the first so many problems; None reads all.
        section: where these settings stand in the configuration; messages name keys of it. None is
            the place of a benchmark, `benchmark.sets.KEY.problems`.

    Raises:
        ValueError: the limit is below 1.
    """

    def __init__(
        self, *, key: str, num_rows: int, prompt_suffix: str, limit: int | None, section: str | None
    ) -> None:
        section = section or f"benchmark.sets.{key}.problems"
        if limit is not None and limit < 1:
            raise ValueError(f"{key_in(section, 'limit')} counts from 1; got {limit}")
        self.key = key
        self.num_rows = num_rows
        self.prompt_suffix = prompt_suffix.strip()
        self.limit = limit
        self.section = section

    @abstractmethod
    def preflight(self) -> None:
        """Returns when the files are in place or can be downloaded; reads and downloads nothing.

        Raises:
            FileNotFoundError: they cannot be had; the message names them and where to put them.
        """

    @abstractmethod
    def read(self) -> Contents:
        """Reads the files anew.

        Raises:
            FileNotFoundError: as `preflight`.
            ValueError: they are not what they should be.
        """

    @property
    def resolved_revision(self) -> str | None:
        """The commit of the hub the files are from; None for files on the disk. Reads them."""
        return self._contents.resolved_revision

    def __len__(self) -> int:
        return len(self._contents.entries)

    @cached_property
    def census(self) -> Census:
        """What the files hold. Reads them, but decodes no picture."""
        entries = self._contents.entries
        pictured = [entry for entry in entries if entry.images]
        return Census(
            problems=len(entries),
            with_pictures=len(pictured),
            notes=tuple(note_of_markers(IMAGE_MARKER not in one.question for one in pictured)),
        )

    def problem_id(self, index: int) -> str:
        """The id of the problem at `index`, without decoding its images."""
        return self._entry(index).id

    def __getitem__(self, index: int) -> Problem:
        """Reads one problem and decodes its images.

        Raises:
            ProblemError: an image or text is broken, the markers do not fit the images, or the
                question or the answer is empty.
        """
        entry = self._entry(index)
        try:
            return build_problem(
                id=entry.id,
                source=self.key,
                question=entry.question,
                answer=entry.answer,
                images=entry.images,
                read_image=lambda image: decode_image(str(self._contents.images.find(image)), None),
                prompt_suffix=self.prompt_suffix,
            )
        except ProblemError as error:
            raise ProblemError(error.reason, f"problem {shown(entry.id)}: {error}") from error

    def _entry(self, index: int) -> Entry:
        if not 0 <= index < len(self):
            raise IndexError(f"problem {index} of {len(self)}")
        return self._contents.entries[index]

    @cached_property
    def _contents(self) -> Contents:
        self.preflight()
        contents = self.read()
        if len(contents.entries) != self.num_rows:
            raise ValueError(
                f"{self.key} should hold {self.num_rows} problems; got "
                f"{len(contents.entries)}. Is the download complete? If its authors changed it, pin "
                f"the commit ({key_in(self.section, 'revision')}=COMMIT) or set "
                f"{key_in(self.section, 'num_rows')}={len(contents.entries)}."
            )
        entries = contents.entries[: self.limit]
        missing = [
            (entry.id, image)
            for entry in entries
            for image in entry.images
            if contents.images.find(image) is None
        ]
        if missing:
            problem, image = missing[0]
            raise FileNotFoundError(
                f"{self.key} misses {len(missing)} of its pictures below "
                f"{contents.images.root}; the first is {shown(image)} of problem {shown(problem)}. "
                "Is the archive of pictures complete?"
            )
        return Contents(
            entries=entries,
            images=contents.images,
            resolved_revision=contents.resolved_revision,
        )


def first_existing(candidates: Sequence[Path]) -> Path | None:
    """Returns the first of the paths that is a file or a folder; None where none is."""
    return next((one for one in candidates if one.is_file() or one.is_dir()), None)
