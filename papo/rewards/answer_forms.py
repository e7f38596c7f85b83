r"""What an answer says: a list of values with their units, names and relations, or words.

What the choices are, and why, is in `docs/graders.md`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from papo.rewards import units
from papo.rewards.answer_tokens import CLOSING, OPENING, closing_bracket
from papo.rewards.expression import Node, number, parse
from papo.rewards.latex_tokens import Token, UnreadableError, spelling, text_of, tokens_of

_RELATIONS = frozenset({"=", "<", ">", "le", "ge", "ne", "approx", "in", "equiv"})
FLIPPED = {"<": ">", ">": "<", "le": "ge", "ge": "le", "=": "=", "ne": "ne"}


@dataclass(frozen=True, slots=True)
class Quantity:
    """A value and its unit; no unit is one of any."""

    node: Node
    unit: str | None


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an answer.

    Args:
        words: its spelling, which is all there is to compare where it is no mathematics.
        sides: the quantities of a chain of relations; one where there is no relation.
        relations: what stands between them.
        name: what the value is called, in `x = 5`.
    """

    words: tuple[str, ...]
    sides: tuple[Quantity, ...] = ()
    relations: tuple[str, ...] = ()
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """All members, and whether "or" (a union), a comma or "and" stands between them."""

    members: tuple[Member, ...]
    separators: frozenset[str] = frozenset()

    @property
    def is_union(self) -> bool:
        return self.separators == {"or"}


def number_readings(
    given: list[Token], truth: list[Token]
) -> Iterator[tuple[list[Token], list[Token]]]:
    """`1,234` is a number or a list: both are tried, the same way on both sides."""
    joined_given, joined_truth = _joined_thousands(given), _joined_thousands(truth)
    yield joined_given, joined_truth
    if len(joined_given) != len(given) or len(joined_truth) != len(truth):
        yield given, truth


def _joined_thousands(tokens: list[Token]) -> list[Token]:
    result: list[Token] = []
    depth, index = 0, 0
    while index < len(tokens):
        token = tokens[index]
        depth += (token.text in OPENING) - (token.text in CLOSING)
        if depth == 0 and token.kind == "num" and re.fullmatch(r"[1-9]\d{0,2}", token.text):
            text, end = token.text, index + 1
            while (
                end + 1 < len(tokens)
                and tokens[end].text == ","
                and tokens[end].gap == 0 == tokens[end + 1].gap
                and re.fullmatch(r"\d{3}(?:\.\d+)?", tokens[end + 1].text)
            ):
                text += tokens[end + 1].text
                end += 2
            if end > index + 1:
                (whole,) = tokens_of(text)
                result.append(replace(whole, gap=token.gap))
                index = end
                continue
        result.append(token)
        index += 1
    return result


def read_answer(tokens: list[Token], text: str) -> Answer:
    """Returns the members of an answer, of which these are the tokens and this the text."""
    in_mathematics = "$" in text and not text.lstrip().startswith("\\$")
    if (
        len(tokens) > 2
        and tokens[0].text == r"\{"
        and closing_bracket(tokens, 0) == len(tokens) - 1
    ):
        tokens = tokens[1:-1]
        bar = next(
            (i for i, token in enumerate(tokens[:8]) if token.text in ("|", "mid", ":")), None
        )
        if bar is not None and tokens[0].kind == "word" and bar in (1, 3):
            tokens = tokens[bar + 1 :]
    parts, separators = _split(tokens)
    if not all(parts[:-1]):  # `,5` is no 5, and nobody knows what `3,,4` is; a comma may end a list
        return Answer((Member(spelling(tokens)),))
    members: list[Member] = []
    for part in filter(None, parts):
        members += _members(part, in_mathematics)
    return Answer(tuple(members), frozenset(separators))


def _split(tokens: list[Token]) -> tuple[list[list[Token]], set[str]]:
    parts: list[list[Token]] = [[]]
    separators: set[str] = set()
    depth = environments = 0
    for token in tokens:
        if token.kind == "op":
            depth += (token.text in OPENING) - (token.text in CLOSING)
        environments += (token.text == "begin") - (token.text == "end")
        is_mark = token.kind == "op" and token.text in (",", ";", "&", "、")
        is_word = token.kind == "word" and token.text.lower() in ("or", "and")
        if (is_mark or is_word) and depth == 0 and environments == 0:
            if not (is_word and not parts[-1]):  # `1, and 2` holds one separator
                parts.append([])
            separators.add(token.text.lower())
        else:
            parts[-1].append(token)
    return parts, separators


def _members(tokens: list[Token], in_mathematics: bool) -> list[Member]:
    words = spelling(tokens)
    sides: list[list[Token]] = [[]]
    relations: list[str] = []
    depth = 0
    for token in tokens:
        if token.kind == "op":
            depth += (token.text in OPENING) - (token.text in CLOSING)
        if depth == 0 and token.kind in ("op", "cmd") and token.text in _RELATIONS:
            relations.append(token.text)
            sides.append([])
        else:
            sides[-1].append(token)
    if len(sides) == 2 and relations == ["="] and _name(sides[1]) and not _name(sides[0]):
        sides.reverse()
    name = _name(sides[0]) if relations and relations[0] in ("=", "in") else None
    try:
        quantities = tuple(
            Quantity(Node("var", name), None)
            if name is not None and index == 0
            else _quantity(side, in_mathematics)
            for index, side in enumerate(sides)
        )
    except (UnreadableError, RecursionError):
        return [Member(words)]
    count = sum(_count_signs(quantity.node) for quantity in quantities)
    if count == 1 or (count == 2 and any(quantity.node.holds("mp") for quantity in quantities)):
        return [
            Member(words, tuple(replace(q, node=_signed(q.node, sign)) for q in quantities), tuple(relations), name)
            for sign in (1, -1)
        ]  # fmt: skip
    return [Member(words, quantities, tuple(relations), name)]


def _count_signs(node: Node) -> int:
    return int(node.head in ("pm", "mp")) + sum(_count_signs(part) for part in node.parts)


def _signed(node: Node, sign: int) -> Node:
    parts = tuple(_signed(part, sign) for part in node.parts)
    if node.head in ("pm", "mp"):
        is_plus = (sign > 0) == (node.head == "pm")
        return parts[0] if is_plus else Node("neg", parts=parts)
    return replace(node, parts=parts)


_NAME = re.compile(
    r"(?:m\s*)?angle\s*\{?\s*\d{1,2}\s*\}?|"
    r"(?:m\s*)?(?:angle|triangle|overline|widehat|overarc|theta|alpha|beta|gamma|lambda|mu|phi)?\s*\{?\s*[A-Za-z]{0,4}'*\s*\}?\s*"
    r"(?:_\s*(?:\{[\w\s,]{1,12}\}|\w{1,3}))?\s*(?:\(\s*(?:[A-Za-z]|-?\s*[\d.]+)(?:\s*,\s*(?:[A-Za-z]|-?\s*[\d.]+))*\s*\))?"
)


def _name(tokens: list[Token]) -> str | None:
    """The name on the left of `x = 5`, `\\angle ABC = 40`, `f(x) = 2x`, `(x, y) = (1, 2)`."""
    if (
        not tokens
        or len(tokens) > 12
        or any(token.kind == "num" and i == 0 for i, token in enumerate(tokens))
    ):
        return None
    text = text_of(tokens)
    if tokens[0].text == "(" and tokens[-1].text == ")":
        is_tuple = re.fullmatch(r"\(\s*[A-Za-z]_?\w?(?:\s*,\s*[A-Za-z]_?\w?)+\s*\)", text)
        return "".join(text.split()) if is_tuple else None
    if not _NAME.fullmatch(text) or text in ("e", "i", "pi"):
        return None
    plain = "".join(text.split())
    if numbered := re.fullmatch(r"m?angle\{?(\d+)\}?", plain):
        return "angle " + numbered[1]
    if figure := re.fullmatch(r"m?(?:angle|overline|widehat|overarc)\{?([A-Z]+)\}?", plain):
        return "figure " + min(figure[1], figure[1][::-1])
    plain = plain.replace("{", "").replace("}", "")
    return min(plain, plain[::-1]) if len(plain) == 2 and plain.isupper() else plain


def _quantity(tokens: list[Token], in_mathematics: bool) -> Quantity:
    if not tokens:
        raise UnreadableError("nothing on one side")
    currency = units.currency_of(tokens[0])
    sign = tokens[0].text == "-" and len(tokens) > 1 and units.currency_of(tokens[1])
    if sign:
        currency, tokens = sign, [tokens[0], *tokens[2:]]
    elif currency:
        tokens = tokens[1:]
    if (
        tokens[-1:]
        and tokens[-1].text in ("C", "F")
        and any(t.text in ("circ", "degree") for t in tokens[-3:-1])
    ):
        inner = _quantity(tokens[:-1], in_mathematics)
        if inner.unit == "degree":
            return Quantity(inner.node, "degree" + tokens[-1].text)
    depth = 0
    for index, token in enumerate(tokens):
        if token.kind == "op":
            depth += (token.text in OPENING) - (token.text in CLOSING)
        if depth or index == 0:
            continue
        magnitude = units.magnitude_of(token)
        if magnitude is None and not units.starts_unit(token, in_mathematics=in_mathematics):
            continue
        if token.text == "circ":
            continue
        value, rest = tokens[:index], tokens[index + (magnitude is not None) :]
        if value[-1].text in ("*", "/", "^", "_", "+", "-") or (value[-1].kind == "cmd" and value[-1].text not in ("pi", "infty")):  # fmt: skip
            continue
        unit = units.read_unit(rest) if rest else None
        if (rest and unit is None) or (not rest and magnitude is None):
            continue
        if currency and unit and unit != currency:
            raise UnreadableError("two units")
        node = parse(value)
        if magnitude is not None:
            node = Node("mul", parts=(node, number(10**magnitude)))
        return _with_angle(node, currency or unit)
    return _with_angle(parse(tokens), currency)


def _with_angle(node: Node, unit: str | None) -> Quantity:
    if unit is None and node.head == "degree":
        return Quantity(node.parts[0], "degree")
    if unit is None and node.head == "neg" and node.parts[0].head == "degree":
        return Quantity(Node("neg", parts=node.parts[0].parts), "degree")
    if unit is None and node.head == "prime":
        return Quantity(node.parts[0], node.text)
    return Quantity(node, unit)
