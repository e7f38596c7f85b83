r"""The words of an answer without what stands around it: boxes, brackets, `The answer is`, a full stop."""

from dataclasses import replace

from papo.rewards import units
from papo.rewards.latex_tokens import TAKES_ARGUMENT, Token, tokens_of

OPENING, CLOSING = ("(", "[", "{", r"\{"), (")", "]", "}", r"\}")


def answer_tokens(text: str) -> list[Token]:
    """Returns the tokens of what an answer says.

    Raises:
        UnreadableError: as `tokens_of`.
    """
    tokens = tokens_of(text)
    while True:
        before = len(tokens)
        tokens = _without_lead(_without_wrapping(tokens))
        while tokens and tokens[-1].text == "." and tokens[-1].kind == "op":
            tokens.pop()
        if len(tokens) == before:
            return _without_word_braces(tokens)


def _without_wrapping(tokens: list[Token]) -> list[Token]:
    if (
        len(tokens) > 3
        and tokens[0].text == "boxed"
        and closing_bracket(tokens, 1) == len(tokens) - 1
    ):
        return tokens[2:-1]
    if (
        len(tokens) > 2
        and tokens[0].text in ("{", "(")
        and closing_bracket(tokens, 0) == len(tokens) - 1
    ):
        depth = 0
        inside = tokens[1:-1]
        for token in inside:
            depth += (token.text in OPENING) - (token.text in CLOSING)
            if depth == 0 and token.text in (",", ";") and token.kind == "op":
                return tokens
        return [replace(inside[0], gap=tokens[0].gap), *inside[1:]]
    if len(tokens) > 8 and tokens[0].text == "begin" and tokens[2].text in ("aligned", "align", "equation", "gathered", "split"):  # fmt: skip
        inside = tokens[4:]
        end = next((i for i, token in enumerate(inside) if token.text == "end"), len(inside))
        if len(inside) - end == 4 and not any(token.text in ("&", r"\\") for token in inside[:end]):
            return inside[:end]
    return tokens


def closing_bracket(tokens: list[Token], start: int) -> int | None:
    """The index of the bracket that closes the one at `start`; an interval's may be of another kind."""
    depth = 0
    opening, closing = (("{",), ("}",)) if tokens[start].text == "{" else (OPENING, CLOSING)
    for index in range(start, len(tokens)):
        if tokens[index].kind != "op":
            continue
        depth += (tokens[index].text in opening) - (tokens[index].text in closing)
        if depth == 0:
            pair = tokens[start].text + tokens[index].text
            return index if pair in ("{}", "()", r"\{\}", "[]") else None
    return None


_NOUNS = frozenset(
    {"answer", "result", "value", "solution", "option", "choice", "area", "perimeter", "length", "volume",
     "probability", "distance", "ratio", "number", "sum", "total", "measure", "angle", "time", "speed"}
)  # fmt: skip
_LEAD_WORDS = frozenset(
    {"so", "thus", "hence", "therefore", "the", "final", "correct", "right", "my", "a", "of", "to", "for",
     "this", "that", "is", "problem", "question"}
)  # fmt: skip


def _without_lead(tokens: list[Token]) -> list[Token]:
    """Drops `The answer is`, `Option`, `Answer:`; words that could change a value are none of these."""
    for index, token in enumerate(tokens[:10]):
        if token.text in (":", "is", "are", "equals", "=") and index > 0:
            words = [word.text.lower() for word in tokens[:index]]
            if _NOUNS.isdisjoint(words):
                return tokens
            lead = next(i for i, word in enumerate(words) if word in _NOUNS)
            is_plain = (
                _LEAD_WORDS.issuperset(words[:lead])
                and not (set(words[lead:]) - _NOUNS) & units.NO_UNITS
            )
            rest = tokens[index + 1 :]
            if rest and rest[0].text == ":":
                rest = rest[1:]
            return rest if is_plain and rest else tokens
        if token.kind != "word":
            break
    if len(tokens) > 1 and tokens[0].text.lower() in ("option", "choice", "answer"):
        return tokens[1:]
    return tokens


def _without_word_braces(tokens: list[Token]) -> list[Token]:
    """`69{degrees}` and `60*\\degree` as `69 degrees` and `60\\degree`."""
    result: list[Token] = []
    index = 0
    while index < len(tokens):
        token = tokens[index]
        is_free = not result or (
            result[-1].text not in ("^", "_") and result[-1].text not in TAKES_ARGUMENT
        )
        if (
            token.text == "{"
            and is_free
            and index + 2 < len(tokens)
            and tokens[index + 2].text == "}"
        ):
            word = tokens[index + 1]
            if word.kind == "word" and len(word.text) > 1:
                result.append(replace(word, gap=2, in_text=True))
                index += 3
                continue
        if token.text == "*" and index + 1 < len(tokens) and tokens[index + 1].text == "degree":
            index += 1
            continue
        result.append(token)
        index += 1
    return result
