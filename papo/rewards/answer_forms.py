r"""What an answer says: option letters, a list of values and relations, or words.

The first half of the combined grader. What the choices are, and why, is in `docs/graders.md`.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from papo.rewards import units
from papo.rewards.exact_value import all_of, dump, equal, has_variables, matches, proportional
from papo.rewards.expression import Node, number, parse
from papo.rewards.latex_tokens import (
    TAKES_ARGUMENT,
    Token,
    UnreadableError,
    spelling,
    tokens_of,
)

_OPENING, _CLOSING = ("(", "[", "{", r"\{"), (")", "]", "}", r"\}")
_RELATIONS = frozenset({"=", "<", ">", "le", "ge", "ne", "approx", "in", "equiv"})
_FLIPPED = {"<": ">", ">": "<", "le": "ge", "ge": "le", "=": "=", "ne": "ne"}
_MAX_MEMBERS = 24


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


_HOLDS_A_NUMBER = re.compile(r"(?:^|[ ${=+\-*/(,])[0-9]")


def same_answer(given: str, truth: str) -> bool | None:
    """Returns whether an answer says what the reference says; None where that cannot be computed."""
    if given == truth and _HOLDS_A_NUMBER.search(truth):
        return True  # most right answers; the others may be option letters, empty or missing
    try:
        given_tokens, truth_tokens = _tokens(given), list(_cached_tokens(truth))
    except UnreadableError:
        return " ".join(given.split()) == " ".join(truth.split())
    if not given_tokens or not truth_tokens or _is_missing(truth_tokens):
        return False
    letters = option_letters(truth_tokens)
    if len(letters) == 1:
        return chosen_option(_text(given_tokens)) == letters
    if spelling(given_tokens) == spelling(truth_tokens):
        return True
    if letters:
        return option_list(_text(given_tokens)) == letters
    try:
        verdicts = [
            _same_members(_answer(first, given), _answer(second, truth))
            for first, second in _number_readings(given_tokens, truth_tokens)
        ]
    except RecursionError:  # hundreds of factors or signs: no answer that a person wrote
        return False
    return True if True in verdicts else None if None in verdicts else False


def leaves(text: str) -> Counter[str]:
    """Returns the words and signs of an answer but braces, each as often as it stands there."""
    try:
        tokens = _tokens(text)
    except UnreadableError:
        return Counter([text])
    return Counter(token.text for token in tokens if token.text not in ("{", "}", "*"))


_DECIMAL_COMMA = re.compile(r"\s*[-−]?\d+,\d+\s*")
_THOUSANDS = re.compile(r"\s*[-−]?[1-9]\d{0,2},\d{3}\s*")
_DECIMAL = re.compile(r"\s*\$?[-−]?\d+\.\d+\$?\s*")


def without_decimal_comma(given: str, truth: str) -> str:
    """0,5 is 0.5 only beside a reference that is a decimal number; else it may be a list or thousands."""
    if (
        _DECIMAL_COMMA.fullmatch(given)
        and _DECIMAL.fullmatch(truth)
        and not _THOUSANDS.fullmatch(given)
    ):
        return given.replace(",", ".")
    return given


@lru_cache(maxsize=4096)
def _cached_tokens(text: str) -> tuple[Token, ...]:
    """The tokens of a reference, which many responses are compared with."""
    return tuple(_tokens(text))


def _is_missing(tokens: list[Token]) -> bool:
    """A reference that was no answer: what a table's reader makes of an empty cell."""
    return len(tokens) == 1 and tokens[0].text.casefold() == "nan"


# --- spelling -------------------------------------------------------------------------------------


def _tokens(text: str) -> list[Token]:
    tokens = tokens_of(text)
    while True:
        before = len(tokens)
        tokens = _without_lead(_without_wrapping(tokens))
        while tokens and tokens[-1].text == "." and tokens[-1].kind == "op":
            tokens.pop()
        if len(tokens) == before:
            return _without_word_braces(tokens)


def _without_wrapping(tokens: list[Token]) -> list[Token]:
    if len(tokens) > 3 and tokens[0].text == "boxed" and _closing(tokens, 1) == len(tokens) - 1:
        return tokens[2:-1]
    if len(tokens) > 2 and tokens[0].text in ("{", "(") and _closing(tokens, 0) == len(tokens) - 1:
        depth = 0
        inside = tokens[1:-1]
        for token in inside:
            depth += (token.text in _OPENING) - (token.text in _CLOSING)
            if depth == 0 and token.text in (",", ";") and token.kind == "op":
                return tokens
        return [replace(inside[0], gap=tokens[0].gap), *inside[1:]]
    if len(tokens) > 8 and tokens[0].text == "begin" and tokens[2].text in ("aligned", "align", "equation", "gathered", "split"):  # fmt: skip
        inside = tokens[4:]
        end = next((i for i, token in enumerate(inside) if token.text == "end"), len(inside))
        if len(inside) - end == 4 and not any(token.text in ("&", r"\\") for token in inside[:end]):
            return inside[:end]
    return tokens


def _closing(tokens: list[Token], start: int) -> int | None:
    """The index of the bracket that closes the one at `start`; an interval's may be of another kind."""
    depth = 0
    opening, closing = (("{",), ("}",)) if tokens[start].text == "{" else (_OPENING, _CLOSING)
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
            return tokens
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


def _text(tokens: list[Token]) -> str:
    return "".join((" " if token.gap else "") + token.text for token in tokens).strip()


# --- options --------------------------------------------------------------------------------------

_LETTERS = "A-J"
_CHOICE = re.compile(
    rf"(?:\$|\\\$|\*\*|\s)*(?:\(\s*([{_LETTERS}])\s*\)|\[\s*([{_LETTERS}])\s*\]|([{_LETTERS}])(?=\s*(?:[.:)、]|$)))"
    r"\s*[.:)、*]*\s*(.*)",
    re.DOTALL,
)
_MARKED = re.compile(r"[(\[]\s*[A-Ja-j]\s*[)\]]|(?<![A-Za-z])[A-J]\s*[.:)](?!\d)")
_WORD = re.compile(r"[A-Za-z']+")
# Texts that options have, though their words could take an answer back.
_OPTION_TEXT = re.compile(
    rf"[Nn]o\.?|(?:[Bb]oth|[Nn]either)\s+\(?[{_LETTERS}]\)?\s+(?:and|nor)\s+\(?[{_LETTERS}]\)?\.?"
)
_OR_AN_OPTION = re.compile(r"^\W*or\b|\bor\W*$|\bor\W{0,3}[A-Ja-j]\b(?!\s*[=<>^])")
_SMALL_HEDGE = re.compile(r"\b(?:be|choose|pick|select|maybe|option|choice)\W{1,3}[b-j]\b")
_HEDGES = frozenset(
    {"or", "not", "no", "nor", "but", "actually", "wait", "maybe", "perhaps", "possibly", "instead",
     "rather", "correct", "correction", "answer", "option", "options", "choice", "choices", "either", "both",
     "also", "incorrect", "wrong", "isn't", "don't", "sorry", "otherwise", "alternatively", "hmm", "however",
     "unless", "choose", "chose", "pick", "select", "final", "finally", "guess", "think", "boxed", "could",
     "might", "may", "too"}
)  # fmt: skip
_CONNECTIVES = _HEDGES | frozenset(
    {"and", "is", "it", "the", "a", "to", "an", "if", "then", "so", "be", "could", "might", "may", "as",
     "well"}
)  # fmt: skip


def option_letters(tokens: list[Token]) -> frozenset[str]:
    """Returns the letters A to J that a reference consists of; `AC` may be a segment and is none."""
    text = _text(tokens).replace("、", ",")
    if re.fullmatch(
        rf"[{_LETTERS}](?:\s*(?:,|;|&|\band\b|\s)\s*(?:and\s+)?\(?[{_LETTERS}]\)?)*", text
    ):
        return frozenset(re.sub(rf"[^{_LETTERS}]", "", text))
    return frozenset()


def chosen_option(text: str) -> frozenset[str] | None:
    """Returns the one option that an answer names, as `B`, `(B) 12`, `B. 12`; None where it names several."""
    if re.fullmatch("[a-j]", text):
        return frozenset(text.upper())
    match = _CHOICE.fullmatch(text)
    if match is None:
        lower = re.fullmatch(r"\(\s*([a-j])\s*\)(\s+\S.*)?", text, re.DOTALL)
        if lower is None:
            return None
        letter, rest = lower[1].upper(), lower[2] or ""
    else:
        letter, rest = match[1] or match[2] or match[3], match[4]
    if _OPTION_TEXT.fullmatch(rest) and letter not in rest:
        return frozenset(letter)
    words = _WORD.findall(rest)
    lowered = [word.lower() for word in words]
    others = [word for word in words if re.fullmatch(f"[{_LETTERS}]", word)]
    if _MARKED.search(rest) and _MARKED.search(rest)[0].strip("([ ])") != letter:  # type: ignore[index]
        return None
    if words and all(word in _CONNECTIVES or len(word) == 1 for word in lowered):
        return frozenset(letter) if _is_formula(rest, others) else None
    if (others and not _HEDGES.isdisjoint(lowered)) or _SMALL_HEDGE.search(rest):
        return None
    is_taken_back = lowered[:1] in (["is"], ["isn't"], ["no"], ["not"], ["or"], ["wrong"])
    return None if is_taken_back and not _HEDGES.isdisjoint(lowered) else frozenset(letter)


def _is_formula(rest: str, others: list[str]) -> bool:
    """Whether an option's text is mathematics in single letters: `(B) 2x + 1`, and names no option."""
    return (
        not others
        and bool(re.search(r"[\d=+^]", rest))
        and not re.search(r"\b(?:not|no)\b", rest)
        and not _OR_AN_OPTION.search(rest)
    )


def option_list(text: str) -> frozenset[str] | None:
    """Returns the option letters of a list such as `A, C`, `(A) and (C)`, `AC`; None if it is none."""
    text = text.replace("(", " ").replace(")", " ").replace("、", ",").strip()
    if re.fullmatch(rf"[{_LETTERS}]{{1,10}}", text) and len(set(text)) == len(text):
        return frozenset(text)
    if re.fullmatch(r"[A-Ja-j](?:\s*(?:,|;|&|\band\b|\s)\s*(?:and\s+)?[A-Ja-j])*", text):
        return frozenset(re.sub(r"\band\b|[^A-Ja-j]", "", text).upper())
    return None


# --- members --------------------------------------------------------------------------------------


def _number_readings(
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
        depth += (token.text in _OPENING) - (token.text in _CLOSING)
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


def _answer(tokens: list[Token], text: str) -> Answer:
    in_mathematics = "$" in text and not text.lstrip().startswith("\\$")
    if len(tokens) > 2 and tokens[0].text == r"\{" and _closing(tokens, 0) == len(tokens) - 1:
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
            depth += (token.text in _OPENING) - (token.text in _CLOSING)
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
            depth += (token.text in _OPENING) - (token.text in _CLOSING)
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
    r"(?:m\s*)?(?:angle|triangle|overline|theta|alpha|beta|gamma|lambda|mu|phi)?\s*\{?\s*[A-Za-z]{0,4}'*\s*\}?\s*"
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
    text = _text(tokens)
    if tokens[0].text == "(" and tokens[-1].text == ")":
        is_tuple = re.fullmatch(r"\(\s*[A-Za-z]_?\w?(?:\s*,\s*[A-Za-z]_?\w?)+\s*\)", text)
        return "".join(text.split()) if is_tuple else None
    if not _NAME.fullmatch(text) or text in ("e", "i", "pi"):
        return None
    plain = "".join(text.split())
    if figure := re.fullmatch(r"m?(?:angle|overline)\{?([A-Z]+)\}?", plain):
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
            depth += (token.text in _OPENING) - (token.text in _CLOSING)
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


# --- comparison -----------------------------------------------------------------------------------


def _same_members(given: Answer, truth: Answer) -> bool | None:
    if not given.members or not truth.members:
        return False
    if {given.separators, truth.separators} == {frozenset({"or"}), frozenset({"and"})} and not all(
        _is_value(member) for member in truth.members
    ):
        return False
    as_intervals = _same_intervals(given, truth)
    if as_intervals is not None:
        return as_intervals
    givens, truths = given.members, truth.members
    if len(givens) != len(truths):
        return False
    if len(truths) > _MAX_MEMBERS:
        return None
    if len(truths) == 1:
        return _same_member(givens[0], truths[0])
    for named, other in ((givens, truths), (truths, givens)):
        names = [member.name for member in named]
        if None not in names and len(set(names)) == len(names) and not any(m.name for m in other):
            return all_of(map(_same_member, givens, truths))
    return matches(givens, truths, _same_member)


def _same_member(given: Member, truth: Member) -> bool | None:
    if given.words == truth.words:
        return True
    if not given.sides or not truth.sides:
        return False
    given_value, truth_value = _single_value(given), _single_value(truth)
    if given_value is not None and truth_value is not None:
        verdict = _same_names(given.name, truth.name) and _same_quantity(given_value, truth_value)
        if given.relations and truth.relations and given.name is None and truth.name is None:
            # Two identities say the same when their left sides do: cos(pi) = -1 is not sin(-pi/2) = -1.
            return verdict and dump(given.sides[0].node) == dump(truth.sides[0].node)
        if verdict is True or not given.relations or not truth.relations:
            return verdict
    if not given.relations or not truth.relations or _is_solved(given) != _is_solved(truth):
        return False
    return _same_relation(given, truth)


def _is_value(member: Member) -> bool:
    """Whether "1 and 2" means what "1 or 2" does: two solutions, but not two inequalities or two words."""
    return bool(member.sides) and set(member.relations) <= {"="}


def _is_solved(member: Member) -> bool:
    """Whether it says what a variable is: `x = 3`, `x - 3 = 0`, `x > 3`, and not `2x + 4 = 10`.

    Who repeats the equation of a problem has not solved it.
    """
    nodes = [side.node for side in member.sides]
    unknown = [node for node in nodes if has_variables(node)]
    if len(unknown) != 1:
        return False
    (node,) = unknown
    rest = [other for other in nodes if other is not node]
    if node.head == "add" and len(node.parts) == 2 and [other.value for other in rest] == [0]:
        node = next((part for part in node.parts if has_variables(part)), node)
    return node.head == "var"


def _single_value(member: Member) -> Quantity | None:
    """The value of `x = 2 + 3 = 5`, `2 + 3 = 5` or `5`; None of `x = x = 3`, `3 = 4`, `x \\ne 3`."""
    if not member.relations:
        return member.sides[0]
    if member.relations == ("in",) and member.name:
        return member.sides[1]
    if set(member.relations) != {"="}:
        return None
    sides = member.sides[1:] if member.name else member.sides
    if member.name and any(_mentions(side.node, member.name) for side in sides):
        return None
    if all(_same_quantity(side, sides[-1]) for side in sides[:-1]):
        return next((side for side in reversed(sides) if side.unit), sides[-1])
    return None


def _mentions(node: Node, name: str) -> bool:
    return name in {text.replace("\\", "").replace(" ", "") for text in node.names()}


def _same_names(given: str | None, truth: str | None) -> bool:
    """x is not y; a name may be missing; y is f(x), and A is A(t)."""
    if given is None or truth is None or given == truth:
        return True
    if given.startswith("(") or truth.startswith("("):
        return False
    given_head, given_call = _call(given)
    truth_head, truth_call = _call(truth)
    if given_head == truth_head:
        return not (given_call and truth_call)
    return bool(given_call) != bool(truth_call) and "y" in (given, truth)


def _call(name: str) -> tuple[str, str]:
    head, _, variables = name.partition("(")
    return head, variables


def _same_quantity(given: Quantity, truth: Quantity) -> bool | None:
    if given.unit and truth.unit and given.unit != truth.unit:
        return False
    verdict = equal(given.node, truth.node)
    if verdict is True or given.unit == truth.unit:
        return verdict
    # 50% is 50 by the dropped sign (above) and 0.5 by its meaning (here).
    if given.unit == "percent":
        return equal(Node("div", parts=(given.node, number(100))), truth.node)
    if truth.unit == "percent":
        return equal(given.node, Node("div", parts=(truth.node, number(100))))
    return verdict


def _same_relation(given: Member, truth: Member) -> bool | None:
    if len(given.relations) != len(truth.relations):
        return False
    verdicts = []
    for sides, relations in _directions(given):
        if relations != truth.relations:
            continue
        if len(relations) == 1:
            if relations[0] not in _FLIPPED:
                verdict = all_of(map(_same_quantity, sides, truth.sides))
            else:
                left, right = (
                    Node("add", parts=(pair[0].node, Node("neg", parts=(pair[1].node,))))
                    for pair in (sides, truth.sides)
                )
                verdict = proportional(left, right, positive=relations[0] not in ("=", "ne"))
                if verdict is None:
                    verdict = all_of(map(_same_quantity, sides, truth.sides))
        else:
            verdict = all_of(map(_same_quantity, sides, truth.sides))
        verdicts.append(verdict)
    return True if True in verdicts else None if None in verdicts else False


def _directions(member: Member) -> Iterator[tuple[tuple[Quantity, ...], tuple[str, ...]]]:
    yield member.sides, member.relations
    if all(relation in _FLIPPED for relation in member.relations):
        yield (
            member.sides[::-1],
            tuple(_FLIPPED[relation] for relation in reversed(member.relations)),
        )


@dataclass(frozen=True, slots=True)
class _Interval:
    """Bounds, None where there is none, and whether each belongs to it."""

    low: Node | None
    has_low: bool
    high: Node | None
    has_high: bool


def _same_intervals(given: Answer, truth: Answer) -> bool | None:
    """Compares an inequality with an interval, or two inequalities; None where neither side is one."""
    if not any(_is_inequality(member) for answer in (given, truth) for member in answer.members):
        return None
    given_read, truth_read = _intervals(given), _intervals(truth)
    if given_read is None or truth_read is None:
        return None
    (given_names, givens), (truth_names, truths) = given_read, truth_read
    if len(given_names | truth_names) > 1:
        return False
    return matches(givens, truths, _same_interval)


def _is_inequality(member: Member) -> bool:
    return bool(member.relations) and set(member.relations) <= {"<", ">", "le", "ge", "ne"}


def _same_interval(given: _Interval, truth: _Interval) -> bool | None:
    if (given.has_low, given.has_high) != (truth.has_low, truth.has_high):
        return False
    verdicts: list[bool | None] = []
    for one, other in ((given.low, truth.low), (given.high, truth.high)):
        if one is None or other is None:
            verdicts.append(one is other)
        else:
            verdicts.append(equal(one, other))
    return all_of(verdicts)


def _intervals(answer: Answer) -> tuple[frozenset[str], list[_Interval]] | None:
    if len(answer.members) > 1 and not answer.is_union:
        return None
    names: frozenset[str] = frozenset()
    found: list[_Interval] = []
    for member in answer.members:
        if _is_inequality(member):
            read = _inequality(member)
            if read is None:
                return None
            names |= {read[0]}
            found += read[1]
            continue
        value = (
            member.sides[-1].node if member.sides and member.relations in ((), ("in",)) else None
        )
        if value is None:
            return None
        if member.name:
            names |= {member.name}
        for node in value.parts if value.head == "union" else (value,):
            if node.head != "tuple" or len(node.parts) != 2:
                return None
            low, high = node.parts
            found.append(
                _Interval(
                    None if _is_infinite(low, -1) else low, node.text[0] == "[",
                    None if _is_infinite(high, 1) else high, node.text[1] == "]",
                )
            )  # fmt: skip
    return names, found


def _is_infinite(node: Node, sign: int) -> bool:
    if sign < 0:
        return node.head == "neg" and _is_infinite(node.parts[0], 1)
    return node.head == "var" and node.text == r"\infty"


def _inequality(member: Member) -> tuple[str, list[_Interval]] | None:
    places = [
        i
        for i, side in enumerate(member.sides)
        if side.node.head == "var" and not _is_infinite(side.node, 1)
    ]
    if len(places) != 1 or len(member.sides) > 3:
        return None
    place = places[0]
    name = member.sides[place].node.text
    low: Node | None = None
    high: Node | None = None
    has_low = has_high = False
    for index, relation in enumerate(member.relations):
        if place not in (index, index + 1):
            return None
        other = member.sides[index + 1 if place == index else index].node
        if name in other.names():
            return None
        facing = relation if place == index else _FLIPPED[relation]
        if facing == "ne":
            if len(member.relations) > 1:
                return None
            return name, [
                _Interval(None, False, other, False),
                _Interval(other, False, None, False),
            ]
        if facing in (">", "ge"):
            if low is not None or (index and high is None):
                return None
            low, has_low = other, facing == "ge"
        else:
            if high is not None:
                return None
            high, has_high = other, facing == "le"
    if low is not None and _is_infinite(low, -1):
        low = None
    if high is not None and _is_infinite(high, 1):
        high = None
    return name, [_Interval(low, has_low, high, has_high)]
