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
_BOXES_AND_BRACES = re.compile(r"\\(?:boxed|fbox)[ \t]?\{|\\.|[{}]", re.DOTALL)
_LONE_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{\s*\}")


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
    r"""Like `last_boxed`, and reads `\boxed {4}` and `\fbox{4}`; `\{` and `\}` do not count.

    A box in a box is read with what stands around it, if anything does: `\boxed{\boxed{3} or \boxed{4}}`.
    None where the last box stands in a comment of LaTeX or HTML: nobody who reads the response sees it.
    """
    open_boxes: list[tuple[int, int]] = []  # depth of braces outside it, where its content starts
    depth = 0
    begin = start = outermost = None
    for match in _BOXES_AND_BRACES.finditer(text):
        token = match.group()
        if token == "}":
            depth -= 1
            if open_boxes and open_boxes[-1][0] == depth:
                open_boxes.pop()
        elif token == "{":
            depth += 1
        elif token.endswith("{"):
            begin, start = match.span()
            outermost = open_boxes[0][1] if open_boxes else None
            open_boxes.append((depth, start))
            depth += 1
    if begin is None or start is None or _is_commented_out(text, begin):
        return None
    answer = _up_to_closing_brace(text, start, _BRACES_OR_ESCAPES)
    if outermost is None or answer is None:
        return answer
    around = _up_to_closing_brace(text, outermost, _BRACES_OR_ESCAPES)
    is_alone = around is None or _LONE_BOX.fullmatch(around.replace(answer, "", 1))
    return answer if is_alone else around


_COMMENT = re.compile(r"(?:^|[}.;$])[ \t]{0,40}%")


def _is_commented_out(text: str, begin: int) -> bool:
    """Whether a comment is open where the box begins. A percent sign behind a word or number is no comment."""
    opened = text.rfind("<!--", 0, begin)
    if opened >= 0 and text.find("-->", opened, begin) < 0:
        return True
    line = text[text.rfind("\n", 0, begin) + 1 : begin]
    return bool(_COMMENT.search(line))


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
