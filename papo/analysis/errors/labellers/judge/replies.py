"""What a judge replied: kept on disk, read without trust, and turned into labels."""

import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from papo.analysis.errors.taxonomy import (
    ERROR_CATEGORIES,
    Case,
    ErrorCategory,
    ErrorLabel,
    Exclusion,
    label_case,
)
from papo.storage.files import AppendOnlyFile, writable

_QUOTE_NOT_NEEDED = (ErrorCategory.FORMAT, ErrorCategory.LABEL_ERROR, ErrorCategory.OTHER)
_MAX_EVIDENCE = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One reply of a judge, as it came.

    Attributes:
        content: its text.
        refused: whether it declined to answer.
        was_cut: whether its length limit ended it.
        prompt_tokens, completion_tokens: as the server counts them; 0 where it does not.
        sent: the parameters of the request that it answers.
    """

    content: str
    refused: bool = False
    was_cut: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    sent: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_greedy(self) -> bool:
        """Whether the request asked for greedy decoding, so that asking again says the same."""
        return self.sent.get("temperature") == 0 or self.sent.get("top_k") == 1


class ReplyCache:
    """Replies by the key of their prompt, in one file of JSON lines that survives a crash.

    A line that holds no reply (damaged, or kept by a version that did not look) is left out, so that
    its prompt is asked again.

    Args:
        folder: holds replies.jsonl; made if it is not there.

    Attributes:
        left_out: numbers of the lines that hold no reply, from 1.
    """

    def __init__(self, folder: Path) -> None:
        self._file = AppendOnlyFile(folder / "replies.jsonl")
        self._lock = threading.Lock()
        self._replies: dict[str, Reply] = {}
        self.left_out: list[int] = []
        for number, line in enumerate(self._file.read_lines(), start=1):
            if (found := _kept_reply(line)) is None:
                self.left_out.append(number)
            else:
                key, reply = found
                self._replies[key] = reply

    def get(self, key: str) -> Reply | None:
        """The reply to a prompt, if there is one."""
        return self._replies.get(key)

    def keep(self, key: str, reply: Reply) -> None:
        """Writes a reply down; it is on disk on return. Threads may call it."""
        with self._lock:
            self._file.append(json.dumps({"key": key, **asdict(reply)}) + "\n")
            self._replies[key] = reply


def _kept_reply(line: str) -> tuple[str, Reply] | None:
    """The key and the reply of a line; None where it holds anything else."""
    try:
        row = json.loads(line)
        key = row.pop("key")
        kinds = {
            "content": str,
            "refused": bool,
            "was_cut": bool,
            "prompt_tokens": int,
            "completion_tokens": int,
            "sent": dict,
        }
        # bool is an int for Python, and no count.
        if type(key) is not str or any(
            type(value) is not kinds[name] for name, value in row.items()
        ):
            return None
        hash(tuple(row.get("sent", {}).values()))  # parameters are counted by their values
        return key, Reply(**row)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def read_reply(case: Case, reply: Reply, *, labeller: str) -> ErrorLabel | Exclusion:
    """Returns the label a reply gives, or why it gives none.

    Reasons: "refusal"; "truncated_reply"; "malformed_reply" (no JSON object of the asked fields);
    "unknown_category"; "quote_not_found" (the quote is not in the response, or is missing where the
    category stands on words of the response).
    """

    def exclude(reason: str) -> Exclusion:
        return Exclusion(item=case.item, labeller=labeller, reason=reason)

    if reply.refused:
        return exclude("refusal")
    values = _first_json_object(reply.content)
    if values is None:
        return exclude("truncated_reply" if reply.was_cut else "malformed_reply")
    category, quote = values.get("category"), values.get("quote", "")
    evidence, confidence = values.get("evidence", ""), values.get("confidence")
    if not (isinstance(category, str) and isinstance(quote, str) and isinstance(evidence, str)):
        return exclude("malformed_reply")
    if category not in ERROR_CATEGORIES:
        return exclude("unknown_category")
    quote = quote.strip()
    is_needed = category not in _QUOTE_NOT_NEEDED
    if (is_needed and not quote) or (quote and not _occurs(quote, case.response)):
        return exclude("quote_not_found")
    is_number = isinstance(confidence, int | float) and not isinstance(confidence, bool)
    return label_case(
        case,
        ErrorCategory(category),
        labeller=labeller,
        confidence=float(confidence) if is_number and 0 <= confidence <= 1 else None,  # type: ignore[arg-type, operator]
        evidence=writable(evidence[:_MAX_EVIDENCE]),
        quote=quote,
    )


def _occurs(quote: str, response: str) -> bool:
    """Whether the words stand in the response, white space aside."""
    return " ".join(quote.split()) in " ".join(response.split())


def _first_json_object(text: str) -> dict[str, Any] | None:
    """The first JSON object in a reply; servers without schemas wrap it in words or fences."""
    decoder = json.JSONDecoder()
    start = text.find("{")
    # A reply is short; a hostile one of many braces is not tried at each of them.
    for _ in range(20):
        if start < 0:
            return None
        try:
            found, _ = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
            continue
        return found if isinstance(found, dict) else None
    return None
