"""A benchmark: its problems, who grades them, and its column in the published table."""

import re
from dataclasses import dataclass
from typing import Any

from papo.types import Grader, ProblemSource

GROUPS = ("general", "vision", "lab", "other")
"""`general` and `vision` are the halves of the published Table 1."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Benchmark:
    """One test set.

    Attributes:
        key: short name, used in files and file names.
        label: what a table calls it.
        group: one of `GROUPS`.
        published_column: its column of Table 1 (papo/storage/published.yaml); None where it has none.
        problems: read lazily, always in the same order.
        grader: says which answers are right.

    Raises:
        ValueError: a key that is no file name, or an unknown group.
    """

    key: str
    label: str
    group: str
    published_column: str | None
    problems: ProblemSource
    grader: Grader

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", self.key):
            raise ValueError(
                "the key of a benchmark names files, so it is made of letters, digits, _ and -; got "
                f"{self.key!r}. Rename it under benchmark.sets."
            )
        if self.group not in GROUPS:
            raise ValueError(
                f"the group of a benchmark is one of {', '.join(GROUPS)}; got {self.group!r}. "
                f"Set benchmark.sets.{self.key}.group."
            )

    def facts(self) -> dict[str, Any]:
        """What its problems are, for run.json; reads or downloads the table."""
        return {
            "num_problems": len(self.problems),
            "revision": getattr(self.problems, "resolved_revision", None),
        }

    def preflight(self) -> None:
        """Says what is missing before a model is loaded, where its problems can say so."""
        check = getattr(self.problems, "preflight", None)
        if check is not None:
            check()

    def close(self) -> None:
        """Ends the processes of its grader, if it has any."""
        end = getattr(self.grader, "close", None)
        if end is not None:
            end()
