"""A question as it stands in a cell: text, or a chat of which one turn asks and a last one may answer.

Chats are read as TRL, verl, ms-swift, LLaMA-Factory and OpenAI's API write them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from papo.data.cells import Cell, kind_of
from papo.types import IMAGE_MARKER, shown

_ROLES = {"human": "user", "gpt": "assistant"}
"""What ShareGPT calls the turns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a cell asks.

    Attributes:
        text: stripped, with an `<image>` marker where a chat says that a picture stands; '' where there is none.
        pictures: those that a chat holds itself, as they are stored.
        system: what the system's turn says.
        answer: what the last turn, an assistant's, says; never a part of the text.
    """

    text: str
    pictures: tuple[Any, ...] = ()
    system: str = ""
    answer: str | None = None


@dataclass(slots=True)
class _Content:
    text: str = ""
    pictures: list[Any] = field(default_factory=list)


def question_in(cell: Cell) -> Question:
    """Returns what a cell asks.

    A chat is a list of turns with `role` and `content` (or ShareGPT's `from` and `value`): one of the user, which a
    system's may precede and an assistant's may follow. Of a content in parts, texts follow one another and a
    picture becomes a marker.

    Raises:
        ProblemError: it is neither text nor a chat, or a chat with other turns or parts.
    """
    value = cell.value
    if value is None:
        return Question(text="")
    if isinstance(value, str):
        return Question(text=value.strip())
    turns = _turns(value)
    if turns is None:
        raise cell.refusal(
            f"{kind_of(value)}, {shown(value)}; a question is text, or a list of turns with role and content",
            "Choose the column of the question",
        )
    roles = [role for role, _ in turns]
    if roles[roles[0] == "system" :] not in (["user"], ["user", "assistant"]):
        raise cell.refusal(
            f"a chat of the turns {shown(', '.join(map(str, roles)))}; a problem is one turn of the user, which a "
            "system's may precede and its answer may follow",
            "Write one problem for each question",
        )
    content = {role: _content(content, cell) for role, content in turns}
    if any(content[role].pictures for role in content if role != "user"):
        raise cell.refusal("a picture in a turn that is not the user's", "Choose another column")
    system, answer = content.get("system"), content.get("assistant")
    return Question(
        text=content["user"].text.strip(),
        pictures=tuple(content["user"].pictures),
        system=system.text.strip() if system else "",
        answer=answer.text.strip() if answer else None,
    )


def _turns(value: object) -> list[tuple[Any, Any]] | None:
    """The role and content of each turn; None where it is no chat."""
    if not isinstance(value, list) or not value:
        return None
    turns = []
    for turn in value:
        if isinstance(turn, Mapping) and {"role", "content"} <= turn.keys():
            turns.append((turn["role"], turn["content"]))
        elif isinstance(turn, Mapping) and {"from", "value"} <= turn.keys():
            turns.append((_ROLES.get(str(turn["from"]), turn["from"]), turn["value"]))
        else:
            return None
    return turns


def _content(content: object, cell: Cell) -> _Content:
    if content is None or isinstance(content, str):
        return _Content(content or "")
    read, num_markers = _Content(), 0
    for part in content if isinstance(content, list) else [content]:
        # Tables of parts have every field in every part.
        filled = (
            {k: v for k, v in part.items() if v is not None} if isinstance(part, Mapping) else {}
        )
        kind = filled.pop("type", None)
        # Some number the pictures: they are in their order, or the markers would stand for others.
        in_order = filled.pop("index", num_markers) == num_markers
        if kind == "text" and isinstance(filled.get("text"), str):
            read.text += filled["text"]
            continue
        if kind not in ("image", "image_url") or not in_order:
            raise _refused(part, cell)
        filled.pop("text", None)
        stored: Any = filled
        for key in ("image_url", "image", "url", "path"):
            if isinstance(stored, Mapping) and key in stored and "bytes" not in stored:
                stored = stored[key]
        if not isinstance(stored, Mapping) or "bytes" in stored:
            read.pictures.append(stored)
        elif stored or kind == "image_url":
            raise _refused(part, cell)
        read.text += IMAGE_MARKER
        num_markers += 1
    if read.pictures and len(read.pictures) < num_markers:
        raise cell.refusal(
            f"a turn with {len(read.pictures)} pictures and {num_markers} places of one",
            "Put all pictures into the turn, or all into the column of pictures",
        )
    return read


def _refused(part: object, cell: Cell) -> Exception:
    return cell.refusal(
        f"a turn with the part {shown(part)}; parts are texts, pictures (image, image_url), and places of pictures "
        "that stand in the column of pictures, in their order",
        "Write the turn so, or choose another column",
    )
