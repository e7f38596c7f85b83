r"""What a response states about a diagram: `AB = 12`, `\angle ABC = 40^\circ`, `AB \parallel CD`, ...

Statements that stand inside a larger expression (`AB + BC = 12`, `\sin A = 0.5`, `AB^2 = 25`) are
left out: they say nothing of one quantity. Every pattern is bounded, so reading takes time linear in
the length of the text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from papo.analysis.errors.labellers.geometry.values import Value, read_value

MAX_STATEMENTS = 500
"""Beyond so many of a kind, a response is not read further."""

_CONTEXT = 160

_PT = r"[A-Z](?:'|_\{?\d\}?)?"
_GAP = r"(?:\s|\\[,;! ]|~){0,2}"
_PAIR = rf"(?P<pair>{_PT}{_GAP}{_PT})(?![A-Za-z'])"
_TRIPLE = rf"(?P<triple>{_PT}{_GAP}{_PT}{_GAP}{_PT})(?![A-Za-z'])"
_WRAP = r"(?:\\(?:overline|overleftrightarrow|overrightarrow|bar|text|mathrm|mathit)\s?\{\s?)?"
_SEGMENT = rf"{_WRAP}(?<![A-Za-z]){_PAIR}"
_ANGLE = (
    r"(?:m\s?)?(?:\\(?:measured)?angle|\\widehat|∠|∡|[Aa]ngles?)\s?\{?\s?"
    rf"(?:{_TRIPLE}|(?P<number>[0-9]{{1,2}})(?![0-9.])|(?P<vertex>{_PT})(?![A-Za-z']))"
)
_ARC = (
    r"(?:m\s?)?(?:\\(?:widehat|overarc|overparen)|\\overset\s?\{\s?\\frown\s?\}|⌒|[Aa]rc)\s?\{?\s?"
    rf"{_PAIR}"
)
_OBJECT = {
    "length": re.compile(_SEGMENT),
    "angle": re.compile(_ANGLE),
    "arc": re.compile(_ARC),
    "side": re.compile(r"(?<![A-Za-z\\])(?P<side>[a-h])(?![A-Za-z])"),
}
_CLOSING = r"(?:\s|\}|\$|\\\)|\\\||\|){0,12}"
_CLOSE = re.compile(_CLOSING)
_EQUALS = re.compile(rf"{_CLOSING}(?:=|\\approx|≈|\\cong|≅)")
_SAYS = re.compile(
    rf"{_CLOSING}(?::|\s\(?(?:is|has|measures|equals|labell?ed|marked))(?:\s(?:a|an|the|equal|to|length|"
    r"measure|measures|of|labell?ed|marked|given|shown|as|with|about|approximately)){0,5}(?=\s)"
)
_RIGHT = re.compile(rf"{_CLOSING}\s(?:is|forms)\s(?:a\s)?right(?:\sangle|-angled)?\b")
_OPENING = re.compile(r"(?:\s|\$|\\\(|\\text\{\s?|\(|~){0,4}")
# Degree signs, and the stars of bold text.
_MARKS = re.compile(r"\^[ ]?\{?[ ]?\\circ(?:[ ]?\})?|°|\\degree|\*\*")
# What may not follow a value that is a whole side of an equation.
_GOES_ON = re.compile(
    r"[^\S\n]{0,12}(?:[-+*/^−×·÷:]\s{0,2}[0-9A-Za-z\\({√]|\\(?:cdot|times|frac|sqrt|sin|cos|tan|angle|div)"
    r"|[A-Z](?![a-z])|\(|\\left|:|%|\\%|∠|√)|[A-Za-z]"
)
_INSIDE = re.compile(
    r"(?:[-+*/^−×·÷{\\_]|[A-Z0-9]\s?:|\\cdot|\\times|\\frac\{|\\div|\b(?:sin|cos|tan|cot|sec|csc|plus|minus|times|"
    r"twice|half|double)(?:\s(?:of|the|as)){0,2}|\b(?:square|ratio|sum|product|difference|area|perimeter)"
    r"\sof(?:\s(?:the|triangle|segment|side|angle|line)){0,2})\s{0,3}$|[0-9)}]\s{0,1}$"
    # "A B C" is a triangle, and B C alone is not meant; an arc is read as an arc.
    # Nor is the second arm of "the angle between AB and AC is 40".
    r"|(?<![A-Za-z])[A-Z]'?\s{1,2}$|\b[Aa]rcs?\s{1,2}$|[A-Z]'?\s(?:and|or|to)\s{1,2}$"
)
_OPENS_MATHS_OR_ITEM = re.compile(r"\\[(\[]\s{0,3}$|(?:^|\n)\s{0,8}[-*+]\s{1,3}$|>\s?[-*+]\s{1,3}$")
_RELATION = re.compile(
    rf"{_WRAP}(?<![A-Za-z])(?P<first>{_PT}{_GAP}{_PT})(?![A-Za-z'])(?:\s|\}}|\$|\\\)){{0,5}}"
    r"(?:(?P<parallel>\\parallel|∥|\|\||(?:is\s|are\s)?parallel\sto)"
    r"|(?P<perpendicular>\\perp|⊥|(?:is\s|are\s)?perpendicular\sto))"
    rf"(?:\s|\$|\\\(|line\s|segment\s|side\s){{0,5}}{_WRAP}(?P<second>{_PT}{_GAP}{_PT})(?![A-Za-z'])"
)

_SENTENCE_END = re.compile(r"[.!?]\s|\n\s*\n")
_HYPOTHESIS = re.compile(
    r"\b(?:if|suppose|assum\w+|let|would|should|could|were|not|cannot|isn't|what)\b|\\ne",
    re.IGNORECASE,
)
_DERIVED = re.compile(
    r"\b(?:therefore|thus|so|hence|then|get|find|found|obtain|gives?|yields?|implies|imply|since|because"
    r"|solv\w+|calculat\w+|comput\w+|must|becomes?|theorem|using|from\s(?:this|which|that)|similarly"
    r"|conclude|means|makes?|by)\b|\\therefore|\\Rightarrow|\\implies|\\to\b|⇒|→|=>|⟹|∴",
    re.IGNORECASE,
)
_READING = re.compile(
    r"\b(?:figures?|diagrams?|images?|pictures?|drawings?|shows?|shown|label\w*|marked|marking\w*|"
    r"annotat\w+|see|reads?|reading|drawn|depict\w+|indicat\w+|illustrat\w+)\b",
    re.IGNORECASE,
)


class Cue(StrEnum):
    """How a statement is introduced."""

    READING = "reading"
    """as something the picture shows"""
    PLAIN = "plain"
    """without a word"""
    DERIVED = "derived"
    """as a conclusion"""
    HYPOTHETICAL = "hypothetical"
    """as an assumption, a question or a denial"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement about the diagram.

    Attributes:
        kind: "length", "angle", "arc", "side" (a lettered one), "parallel" or "perpendicular".
        points: what it is about: two points, three (the vertex in the middle), one vertex, the
            number of an angle or the letter of a side; four points of two lines for a relation.
        value: what it is said to be; None for a relation.
        equal_to: the other object, where two are said to be equal and no value is given.
        cue: how it is introduced.
        start, end: where it stands in the response.
    """

    kind: str
    points: tuple[str, ...]
    value: Value | None
    equal_to: tuple[str, tuple[str, ...]] | None
    cue: Cue
    start: int
    end: int


def blank_out_marks(text: str) -> str:
    """Returns the text with degree signs and bold marks as spaces, all else where it was."""
    return _MARKS.sub(lambda match: " " * len(match.group()), text)


def read_statements(
    text: str, *, letters: frozenset[str], sides: frozenset[str]
) -> list[Statement]:
    """Returns what the text states about lengths, angles, arcs and directions, in its order.

    Args:
        text: a response; hostile.
        letters: those that stand for numbers in this problem; x, y and z always may.
        sides: lower-case letters that name sides of this diagram.
    """
    text = blank_out_marks(text)
    letters = letters | {"x", "y", "z"}
    found = [
        statement
        for kind in _OBJECT
        if kind != "side" or sides
        for statement in _of_kind(kind, text, letters, sides)
    ]
    found.extend(_relations(text))
    return sorted(found, key=lambda statement: statement.start)


def _of_kind(
    kind: str, text: str, letters: frozenset[str], sides: frozenset[str]
) -> Iterator[Statement]:
    for number, match in enumerate(_OBJECT[kind].finditer(text)):
        if number >= MAX_STATEMENTS:
            return
        points = _points(match)
        if kind == "side" and points[0] not in sides:
            continue
        if _is_inside(text, match.start()):
            continue
        said = _read_value_of(kind, text, match.end(), letters)
        if said is None:
            continue
        value, equal_to, end = said
        yield Statement(
            kind=kind,
            points=points,
            value=value,
            equal_to=equal_to,
            cue=cue_before(text, match.start()),
            start=match.start(),
            end=end,
        )


def _read_value_of(
    kind: str, text: str, start: int, letters: frozenset[str]
) -> tuple[Value | None, tuple[str, tuple[str, ...]] | None, int] | None:
    """The value an object is given, or the object it is set equal to, and where that ends."""
    if kind == "angle" and (right := _RIGHT.match(text, start)):
        read = read_value("90")
        assert read is not None
        return read[0], None, right.end()
    relation = _EQUALS.match(text, start)
    by_word = relation is None
    relation = relation or _SAYS.match(text, start)
    if relation is None:
        return None
    begin = _OPENING.match(text, relation.end()).end()  # type: ignore[union-attr]
    # "AB is a tangent": after a word, only a number or x, y, z is a value.
    allowed = letters - {"a"} if by_word else letters
    if read := read_value(text, begin, letters=allowed):
        value, end = read
        return None if _GOES_ON.match(text, end) else (value, None, end)
    for other in () if ":" in relation.group() else ("angle", "arc", "length"):
        if match := _OBJECT[other].match(text, begin):
            after = _CLOSE.match(text, match.end()).end()  # type: ignore[union-attr]
            if other == kind and not _GOES_ON.match(text, after):
                return None, (other, _points(match)), match.end()
            return None
    return None


def _relations(text: str) -> Iterator[Statement]:
    for number, match in enumerate(_RELATION.finditer(text)):
        if number >= MAX_STATEMENTS:
            return
        yield Statement(
            kind="parallel" if match["parallel"] else "perpendicular",
            points=(*_split(match["first"]), *_split(match["second"])),
            value=None,
            equal_to=None,
            cue=cue_before(text, match.start()),
            start=match.start(),
            end=match.end(),
        )


def cue_before(text: str, start: int) -> Cue:
    """How what begins at `start` is introduced, by the words of its sentence before it."""
    before = text[max(0, start - _CONTEXT) : start]
    sentence = _SENTENCE_END.split(before)[-1]
    clause = re.split(r"[;,\n]", sentence)[-1]
    if _HYPOTHESIS.search(clause):
        return Cue.HYPOTHETICAL
    derived = [match.start() for match in _DERIVED.finditer(sentence)]
    reading = [match.start() for match in _READING.finditer(sentence)]
    if reading and (not derived or derived[-1] < reading[-1]):
        return Cue.READING
    return Cue.DERIVED if derived else Cue.PLAIN


def _is_inside(text: str, start: int) -> bool:
    """Whether the object is part of a larger expression to its left."""
    before = text[max(0, start - 40) : start]
    return _INSIDE.search(before) is not None and _OPENS_MATHS_OR_ITEM.search(before) is None


def _points(match: re.Match[str]) -> tuple[str, ...]:
    groups = match.groupdict()
    for name in ("number", "vertex", "side"):
        if groups.get(name):
            return (groups[name],)
    return _split(groups.get("triple") or groups["pair"])


def _split(points: str) -> tuple[str, ...]:
    return tuple(re.findall(_PT, points))
