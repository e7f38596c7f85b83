"""What a diagram of Geometry3K shows, from its annotated logic forms (InterGPS, ACL 2021).

A logic form is a line such as `Equals(LengthOf(Line(T, R)), x+21)` or
`Perpendicular(Line(A, C), Line(D, C))`. Lengths, angles, arcs, parallels, right angles and the order
of points on lines are kept; areas, perimeters and shapes are not.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from papo.analysis.errors.labellers.geometry.values import Value, read_value

_P = r"\s*([A-Z]'?)\s*"
_LINE = rf"Line\({_P},{_P}\)"
_OBJECT = re.compile(
    rf"(?:LengthOf\(\s*|MeasureOf\(\s*)?(?:(?P<line>Line\({_P},{_P}\))"
    rf"|(?P<angle>Angle\({_P},{_P},{_P}\))|(?P<arc>Arc\({_P},{_P}\)))\s*\)?"
)
_NAMED_ANGLE = re.compile(r"(?:MeasureOf\(\s*)?[Aa]ngle[ (]\s*(\w{1,3})\s*\)")
_NAMED_LENGTH = re.compile(r"LengthOf\(\s*([a-z])\s*\)")
_TWO_LINES = re.compile(rf"(Parallel|Perpendicular)\(\s*{_LINE}\s*,\s*{_LINE}")
_ON_LINE = re.compile(rf"PointLiesOnLine\({_P},\s*{_LINE}")
_POINT = re.compile(r"(?<![A-Za-z])[A-Z]'?(?![A-Za-z])")
_MAX_FORM_CHARACTERS = 300

RIGHT_ANGLE = Value(text="90", letters=frozenset(), samples=(90.0, 90.0, 90.0), is_computed=False)

Pair = frozenset[str]
Quantity = tuple[str, Any]
"""("length", {A, B}), ("arc", {A, B}) or ("angle", vertex and its two rays)."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """One number or expression the diagram or the text gives, with the logic form that says so."""

    value: Value
    form: str
    in_diagram: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one problem. Build with `read_facts`.

    Attributes:
        points: every point named in the diagram or the text.
        values: the annotations of each quantity; two where the annotators disagree.
        names: numbered angles and lettered sides, e.g. "angle 4" and "side a".
        letters: the letters in annotated expressions.
        parallel, perpendicular: pairs of lines, each line the points on it.
        lines: the points of each line that has more than two.
        rays: per (vertex, point), the name of the ray from the vertex through the point.
    """

    points: frozenset[str]
    values: Mapping[Quantity, tuple[Annotation, ...]]
    names: Mapping[str, Quantity]
    letters: frozenset[str]
    parallel: frozenset[frozenset[Pair]]
    perpendicular: frozenset[frozenset[Pair]]
    lines: tuple[Pair, ...]
    rays: Mapping[tuple[str, str], str]

    def length(self, first: str, second: str) -> Quantity:
        """The segment between two points."""
        return ("length", frozenset((first, second)))

    def arc(self, first: str, second: str) -> Quantity:
        """The arc between two points, named by them alone."""
        return ("arc", frozenset((first, second)))

    def angle(self, first: str, vertex: str, second: str) -> Quantity:
        """The angle, the same whichever points of its rays name it."""
        return (
            "angle",
            (vertex, frozenset((self.ray(vertex, first), self.ray(vertex, second)))),
        )

    def ray(self, vertex: str, through: str) -> str:
        """The first point, by name, of the ray from `vertex` through a point."""
        return self.rays.get((vertex, through), through)

    def angle_at(self, vertex: str) -> Quantity | None:
        """The angle that `vertex` alone names; None unless exactly two rays leave it."""
        rays = frozenset(ray for (start, _), ray in self.rays.items() if start == vertex)
        return ("angle", (vertex, rays)) if len(rays) == 2 else None

    def line(self, first: str, second: str) -> Pair:
        """All known points of the line through two points."""
        return next(
            (line for line in self.lines if {first, second} <= line), frozenset((first, second))
        )


def read_facts(diagram_forms: Iterable[Any], text_forms: Iterable[Any]) -> Facts:
    """Returns what the logic forms say; forms of no known shape are passed over."""
    diagram, text = list(_clean(diagram_forms)), list(_clean(text_forms))
    betweens = [
        match.groups()
        for form in diagram
        if (match := _ON_LINE.match(form)) and len(set(match.groups())) == 3
    ]
    lines = _merge_lines(betweens)
    facts = Facts(
        points=frozenset(point for form in diagram + text for point in _POINT.findall(form)),
        values={},
        names={},
        letters=frozenset(),
        parallel=frozenset(),
        perpendicular=frozenset(),
        lines=lines,
        rays=_rays(betweens, _neighbours(diagram)),
    )
    values: dict[Quantity, list[Annotation]] = {}
    names: dict[str, Quantity] = {}
    related: dict[str, set[frozenset[Pair]]] = {"Parallel": set(), "Perpendicular": set()}
    for form, in_diagram in [(form, True) for form in diagram] + [(form, False) for form in text]:
        if form.startswith("Equals("):
            _read_equality(form, in_diagram, facts, values, names)
        elif match := _TWO_LINES.match(form):
            kind, a, b, c, d = match.groups()
            pair = frozenset((facts.line(a, b), facts.line(c, d)))
            related[kind].add(pair)
            corner = {a, b} & {c, d}
            if kind == "Perpendicular" and len(corner) == 1 and len({a, b, c, d}) == 3:
                (vertex,) = corner
                (first,), (second,) = {a, b} - corner, {c, d} - corner
                quantity = facts.angle(first, vertex, second)
                values.setdefault(quantity, []).append(Annotation(RIGHT_ANGLE, form, in_diagram))
    return Facts(
        points=facts.points,
        values={quantity: tuple(found) for quantity, found in values.items()},
        names=names,
        letters=frozenset(
            letter for found in values.values() for one in found for letter in one.value.letters
        ),
        parallel=frozenset(related["Parallel"]),
        perpendicular=frozenset(related["Perpendicular"]),
        lines=lines,
        rays=facts.rays,
    )


def _clean(forms: Iterable[Any]) -> Iterator[str]:
    for form in forms:
        if isinstance(form, str) and 0 < len(form) <= _MAX_FORM_CHARACTERS:
            yield form.strip()


def _read_equality(
    form: str,
    in_diagram: bool,
    facts: Facts,
    values: dict[Quantity, list[Annotation]],
    names: dict[str, Quantity],
) -> None:
    left, right = _two_arguments(form)
    if (quantity := _quantity(left, facts)) is None:
        left, right = right, left
        if (quantity := _quantity(left, facts)) is None:
            return
    if match := _NAMED_ANGLE.match(right):
        names[f"angle {match[1]}"] = quantity
    elif match := _NAMED_LENGTH.match(right):
        names[f"side {match[1]}"] = quantity
    elif (read := read_value(right)) and not right[read[1] :].strip():
        values.setdefault(quantity, []).append(Annotation(read[0], form, in_diagram))


def _two_arguments(form: str) -> tuple[str, str]:
    """The two arguments of `Equals(...)`; the second empty where there is one alone."""
    inside = form.removeprefix("Equals(").removesuffix(")")
    depth = 0
    for index, character in enumerate(inside):
        depth += (character in "({") - (character in ")}")
        if character == "," and depth == 0:
            return inside[:index].strip(), inside[index + 1 :].strip()
    return inside, ""


def _quantity(text: str, facts: Facts) -> Quantity | None:
    match = _OBJECT.fullmatch(text)
    if match is None:
        return None
    points = [group for group in match.groups() if group and len(group) <= 2]
    if match["line"]:
        return facts.length(*points)
    return facts.arc(*points) if match["arc"] else facts.angle(*points)


def _merge_lines(betweens: list[tuple[str, ...]]) -> tuple[Pair, ...]:
    """Lines as sets of points: triples that share two points are one line."""
    lines: list[set[str]] = []
    for triple in betweens:
        merged = set(triple)
        apart = []
        for line in lines:
            if len(line & merged) >= 2:
                merged |= line
            else:
                apart.append(line)
        lines = [*apart, merged]
    return tuple(frozenset(line) for line in lines)


def _neighbours(diagram: list[str]) -> set[tuple[str, str]]:
    """(vertex, point) for every line and every arm of an angle that the diagram names."""
    pairs: set[tuple[str, str]] = set()
    for form in diagram:
        for a, b in re.findall(_LINE, form):
            pairs |= {(a, b), (b, a)}
        for a, vertex, b in re.findall(rf"Angle\({_P},{_P},{_P}\)", form):
            pairs |= {(vertex, a), (vertex, b)}
    return pairs


def _rays(
    betweens: list[tuple[str, ...]], neighbours: set[tuple[str, str]]
) -> dict[tuple[str, str], str]:
    """A point between two others is on the ray from either towards the other."""
    groups: dict[tuple[str, str], set[str]] = {pair: {pair[1]} for pair in neighbours}
    for between, first, second in betweens:
        for vertex, end in ((first, second), (second, first)):
            merged = groups.get((vertex, end), {end}) | groups.get((vertex, between), {between})
            for point in merged:
                groups[vertex, point] = merged
        groups.setdefault((between, first), {first})
        groups.setdefault((between, second), {second})
    return {pair: min(points) for pair, points in groups.items()}
