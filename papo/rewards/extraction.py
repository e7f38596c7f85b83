r"""The final answer of a response: what stands in its last box. Linear in the length of the text.

Strict follows mathruler 0.1.0 `extract_boxed_content`, which the authors grade with; lenient also
reads `\boxed {4}`, `\fbox{4}` and escaped braces inside the box.
"""

import re
from typing import TypeGuard

# The authors close up tags that a model wrote with spaces, "< / think >", before they look at a
# response (EasyR1 reward functions): re.sub(r"\s*(<|>|/)\s*", r"\1", text).
_TAG_CHARACTERS = re.compile(r"([<>/])")
_BRACES = re.compile(r"[{}]")
_BRACES_OR_ESCAPES = re.compile(r"\\.|[{}]", re.DOTALL)
_LENIENT_BOX = re.compile(r"\\(?:boxed|fbox)[ \t]?\{")


def close_up_tags(text: str) -> str:
    r"""Returns the text without white space around `<`, `>` and `/`.

    Equal to `re.sub(r"\s*(<|>|/)\s*", r"\1", text)`, which takes time quadratic in the length of
    a run of spaces; this takes linear time.
    """
    pieces = _TAG_CHARACTERS.split(text)
    if len(pieces) == 1:
        return text
    pieces[0] = pieces[0].rstrip()
    pieces[-1] = pieces[-1].lstrip()
    for index in range(2, len(pieces) - 1, 2):
        pieces[index] = pieces[index].strip()
    return "".join(pieces)


def last_boxed(text: str) -> str | None:
    r"""Returns what stands in the last `\boxed{...}`, stripped; None without one or if it is open.

    An open last box is never replaced by an earlier one: the response did not finish its answer.
    mathruler returns the *string* "None" there, which would equal a reference "None".
    """
    start = text.rfind(r"\boxed{")
    if start < 0:
        return None
    return _up_to_closing_brace(text, start + len(r"\boxed{"), _BRACES)


def last_boxed_lenient(text: str) -> str | None:
    r"""Like `last_boxed`, and reads `\boxed {4}` and `\fbox{4}`; `\{` and `\}` do not count."""
    start = None
    for match in _LENIENT_BOX.finditer(text):
        start = match.end()
    if start is None:
        return None
    return _up_to_closing_brace(text, start, _BRACES_OR_ESCAPES)


READ_ANSWER = {
    "mathruler": last_boxed,
    "math_verify": last_boxed,
    "combined": last_boxed_lenient,
}
"""How the final answer is read for each grader, by its name."""

MAX_ANSWER_CHARACTERS = 1_000
"""A longer box is wrong without being read; the longest answers of the data sets are sentences."""


def is_gradable(answer: str | None) -> TypeGuard[str]:
    """Whether a grader is asked about an answer: not where it is missing, empty or overlong."""
    return bool(answer) and len(answer or "") <= MAX_ANSWER_CHARACTERS


def _up_to_closing_brace(text: str, start: int, tokens: re.Pattern[str]) -> str | None:
    depth = 1
    for match in tokens.finditer(text, start):
        if match.group() == "{":
            depth += 1
        elif match.group() == "}":
            depth -= 1
            if depth == 0:
                return text[start : match.start()].strip()
    return None
