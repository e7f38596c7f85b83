"""What a data set holds, counted from its texts before any picture is decoded."""

from collections.abc import Iterable
from dataclasses import dataclass

from papo.types import IMAGE_MARKER, ProblemSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """How many problems there are, and what must be known of how they are read.

    Attributes:
        problems: all that would be read.
        with_pictures: those that have a picture, whether it can be decoded or not.
        notes: sentences for the user; empty where everything stands as it is written.
    """

    problems: int
    with_pictures: int
    notes: tuple[str, ...]


def notes_on(problems: ProblemSource) -> tuple[str, ...]:
    """Returns the notes of problems that say what they hold; reads their texts, or downloads them.

    Raises:
        ValueError: the columns are not there, or no text of them can be read.
    """
    census = getattr(problems, "census", None)
    return () if census is None else census.notes


def note_of_markers(markers_added: Iterable[bool]) -> list[str]:
    """Says how many of the questions that have a picture come without a marker; nothing where none does."""
    answers = list(markers_added)
    if not any(answers):
        return []
    return [
        f"{sum(answers)} of {len(answers)} questions with pictures have no {IMAGE_MARKER} marker: their pictures "
        "are placed before the question"
    ]


def note_of_system_turns(count: int, *, replaced: bool, key: str) -> list[str]:
    """Says how many questions come with a system's turn, and whether it is shown; nothing where none does."""
    if not count:
        return []
    if replaced:
        return [f"the system's turn of {count} questions is not shown; {key}= takes its place"]
    return [f"{count} questions come with a system's turn, which is shown; {key}= takes its place"]
