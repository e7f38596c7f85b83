"""What the training problems were when a run began, so that it does not go on with others.

Kept are hashes, an entry per problem that was read, in the order of the data. The lab draws its problems
from its settings, which are compared anyway.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from papo.storage.files import DamagedFile, write_atomically
from papo.storage.provenance import image_hash
from papo.types import Problem


class ProblemHashes(NamedTuple):
    """One problem: its id, and hashes of what it asks and of what graders know."""

    id: str
    question: str
    answer: str
    pictures: str
    truth: str


class DataFingerprint:
    """Notes the problems of a data set while something else reads them."""

    def __init__(self) -> None:
        self.problems: list[ProblemHashes] = []

    def noting(self, prompt_length: Callable[[Problem], int]) -> Callable[[Problem], int]:
        """Returns the function, which now notes every problem that it measures."""

        def measured(problem: Problem) -> int:
            self.note(problem)
            return prompt_length(problem)

        return measured

    def note(self, problem: Problem) -> None:
        """Notes one problem; the order matters."""
        self.problems.append(
            ProblemHashes(
                id=problem.id,
                question=_hash(f"{problem.system_prompt or ''}{problem.question}"),
                answer=_hash(problem.answer),
                pictures=_hash(" ".join(map(image_hash, problem.images))),
                truth=_hash(json.dumps(_plain(problem.truth), sort_keys=True, default=str)),
            )
        )

    def write(self, file: Path) -> None:
        """Writes a line per problem."""
        write_atomically(file, "".join(json.dumps(one) + "\n" for one in self.problems))

    def difference(self, file: Path) -> str | None:
        """Says how the problems differ from those in the file; None where they do not.

        Raises:
            DamagedFile: it is no such file.
        """
        before = _read(file)
        pairs = zip_longest(before, self.problems)
        for number, (was, is_now) in enumerate(pairs, start=1):
            if was != is_now:
                return (
                    f"{len(before)} problems were read when it began, {len(self.problems)} now; the first "
                    f"that differs is problem {number}, {_what_differs(was, is_now)}"
                )
        return None


def _what_differs(was: ProblemHashes | None, is_now: ProblemHashes | None) -> str:
    if was is None or is_now is None:
        known = was or is_now
        assert known is not None, "one of two different entries is there"
        return f"{known.id!r}: it {'is new' if was is None else 'is gone'}"
    if was.id != is_now.id:
        return f"which was {was.id!r} and is {is_now.id!r}"
    parts = [
        name for name in ("question", "answer", "pictures", "truth")
        if getattr(was, name) != getattr(is_now, name)
    ]  # fmt: skip
    return f"{was.id!r}: it differs in its {' and '.join(parts)}"


def _read(file: Path) -> list[ProblemHashes]:
    try:
        found = [ProblemHashes(*json.loads(line)) for line in file.read_bytes().splitlines()]
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedFile(
            f"{file} is damaged: {error}. Delete it to go on without comparing the training problems."
        ) from error
    return found


def _plain(truth: object) -> object:
    return dict(truth) if isinstance(truth, Mapping) else truth


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
