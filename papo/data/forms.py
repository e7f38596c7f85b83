"""The form of a table is recognised by the names of its columns: which asks, which answers, which has the pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

from papo.types import key_in, shown

AUTO = "auto"
"""The name of a column that is to be recognised."""

QUESTIONS = ("problem", "question", "prompt", "messages", "conversations", "query")
ANSWERS = ("answer", "solution", "reward_model.ground_truth", "ground_truth")
PICTURES = ("images", "image", "file_name")
"""Names in the field, the likeliest first; `file_name` is that of an ImageFolder's metadata."""

_CHATS = ("prompt", "messages", "conversations")
"""Those of questions that may hold a chat, whose last turn may be the answer."""

_ALIKE = ("images", "image")
"""Each is found under the name of the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Where a table has what a problem consists of.

    Attributes:
        question: the column of the question; None where none was recognised.
        answer: that of the reference answer; None: the last turn of the question's chat.
        pictures: that of the pictures; None where there is none, or they stand in the question's chat.
        configured: what the configuration says of these three.
        where: the table, for messages.
        section: where its settings stand in the configuration.
    """

    question: str | None
    answer: str | None
    pictures: str | None
    configured: tuple[str, str | None, str | None]
    where: str
    section: str

    def check(self, names: Sequence[str]) -> None:
        """Raises ValueError where a table with these columns lacks one; names the setting."""
        no_pictures = (
            f" to that of the pictures, or {self._key('images_column')}=null where there are none"
        )
        there = f"only {shown(', '.join(names), 300)}"
        for setting, column, remedy in (
            ("question_column", self.question, ""),
            ("answer_column", self.answer, ""),
            ("images_column", self.pictures, no_pictures),
        ):
            if column is not None and not is_among(column, names):
                raise ValueError(
                    f"{self.where} has no column {column!r}, {there}. Set {self._key(setting)}={remedy}"
                )
        for what, unknown, known in (
            ("question", self.question is None, QUESTIONS),
            ("answer", self.configured[1] == AUTO and self._lacks_answer, ANSWERS),
        ):
            if unknown:
                raise ValueError(
                    f"no column of {self.where} has the name of {what}s ({', '.join(known)}), {there}. "
                    f"Set {self._key(f'{what}_column')}="
                )

    def notes(self, names: Sequence[str]) -> list[str]:
        """Says what is read as what, where that is not what the configuration says."""
        if AUTO in self.configured:
            return [f"{self.where} is read as: {self.sentence()}"]
        configured = self.configured[2]
        if self.pictures != configured:
            return [
                f"{self.where} has no column {configured!r}; the pictures are read from its column "
                f"{self.pictures!r}"
            ]
        if self.pictures and (others := {*_ALIKE} & {*names} - {self.pictures}):
            return [
                f"{self.where} has a column {others.pop()!r} too, which is not read; the pictures are those of "
                f"{self._key('images_column')}={self.pictures}"
            ]
        return []

    def sentence(self) -> str:
        """Says which column is read as what."""
        answer = f"answer {self.answer!r}" if self.answer else "answer: the chat's last turn"
        pictures = f"pictures {self.pictures!r}" if self.pictures else "no column of pictures"
        return f"question {self.question!r}, {answer}, {pictures}"

    @property
    def _lacks_answer(self) -> bool:
        return self.answer is None and self.question not in _CHATS

    def _key(self, setting: str) -> str:
        return key_in(self.section, setting)


def columns_among(
    names: Sequence[str],
    *,
    question: str,
    answer: str | None,
    pictures: str | None,
    where: str,
    section: str,
) -> Columns:
    """Returns the columns of a table, those called `auto` by the names they have in the field.

    Args:
        names: of all its columns.
        question: name of a column, `COLUMN.FIELD`, or `auto`.
        answer: the same; None is the last turn of the chat.
        pictures: the same; None where there are to be no pictures. Of `images` and `image`, one is found under the
            name of the other.
        where: see `Columns`.
        section: see `Columns`.
    """
    found = pictures
    if pictures == AUTO:
        found = _first(PICTURES, names)
    elif pictures in _ALIKE and pictures not in names:
        found = _first(_ALIKE, names) or pictures
    return Columns(
        question=_first(QUESTIONS, names) if question == AUTO else question,
        answer=_first(ANSWERS, names) if answer == AUTO else answer,
        pictures=found,
        configured=(question, answer, pictures),
        where=where,
        section=section,
    )


def is_among(column: str, names: Sequence[str]) -> bool:
    """Whether a table has a column, or the column of objects that a field is of."""
    return column in names or column.partition(".")[0] in names


def _first(candidates: Sequence[str], names: Sequence[str]) -> str | None:
    return next((name for name in candidates if is_among(name, names)), None)
