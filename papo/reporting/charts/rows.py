"""Charts of named rows: dots with their intervals, and bars whose segments add up."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from papo.reporting.charts.axes import (
    Axis,
    Chart,
    Number,
    Range,
    element,
    filled_swatch,
    fitting,
    percent,
    plain,
    room_for,
    round_numbers,
)
from papo.reporting.html import Markup, join

_ROW, _DOT_ROW, _BOTTOM, _MOST_NAME = 26, 13, 40, 150
_SHAPES = 4
_SHOWN_SEGMENT = 0.09  # of the width: a narrower segment has no number in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """A value in a row.

    Attributes:
        value: finite.
        narrow, wide: its intervals, a thick and a thin line; None where there is none.
    """

    value: Number
    narrow: Range | None = None
    wide: Range | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A named row.

    Attributes:
        name: left of it.
        dots: one per series, None where a series has none.
        mark: a few words right of it, which warn.
    """

    name: str
    dots: Sequence[Dot | None]
    mark: str = ""


def dot_chart(
    title: str,
    rows: Sequence[Row],
    series: Sequence[str],
    *,
    along: str,
    reference: Number | None = None,
    reach: Range | None = None,
    signed: bool = False,
    is_overlaid: bool = False,
) -> Chart:
    """Returns rows of dots with intervals; dots of several series lie below one another.

    Args:
        title: above it.
        rows: from the top, at least one.
        series: names of the dots of every row, at most four: they differ in shape and colour.
        along: what the axis is, unit included.
        reference: where a line is drawn from top to bottom.
        reach: the ends of the axis; an interval that leaves them ends there. None: the ends of all narrow
            intervals and of the reference.
        signed: values are differences, written with their sign.
        is_overlaid: the dots of a row lie on one line instead.
    """
    axis = _reach(rows, reference) if reach is None else Axis(low=reach[0], high=reach[1])
    is_single = is_overlaid or len(series) < 2
    height = _ROW if is_single else _DOT_ROW * len(series) + 8
    bottom = height * len(rows)

    def write(value: Number) -> str:
        return f"{value:+.1f}" if signed and value else f"{value:.1f}" if signed else plain(value)

    def say(dot: Dot) -> str:
        ends = "" if dot.narrow is None else f" [{write(dot.narrow[0])}, {write(dot.narrow[1])}]"
        return write(dot.value) + ends

    def say_row(row: Row) -> str:
        named = [
            f"{name} {say(dot)}".strip() if len(series) > 1 else say(dot)
            for name, dot in zip(series, row.dots, strict=True)
            if dot is not None
        ]
        return f"{row.name} {', '.join(named)}" + (f" ({row.mark})" if row.mark else "")

    left = room_for([row.name for row in rows], _MOST_NAME)
    parts = [*_columns(axis, bottom, along, reference=reference, signed=signed)]
    for place, row in enumerate(rows):
        top = height * place
        parts.append(_name(row.name, left, top + height / 2))
        if row.mark:
            at = f"{top + height / 2 + 4:.1f}"
            parts.append(element("text", row.mark, class_="warns", x="100%", dx=10, y=at))
        for number, dot in enumerate(row.dots):
            if dot is not None:
                y = top + (height / 2 if is_single else 4 + _DOT_ROW * (number + 0.5))
                words = f"{row.name} {series[number] if len(series) > 1 else ''} {say(dot)}"
                parts.append(_marked(dot, axis, y, number, " ".join(words.split())))
    return Chart(
        title=title,
        spoken=f"{title}, {along}: " + "; ".join(map(say_row, rows)),
        drawing=join(parts),
        height=bottom,
        margins=(
            left,
            room_for([row.mark for row in rows]) + 16 if any(r.mark for r in rows) else 14,
            6,
            _BOTTOM,
        ),
        legend=[(_swatch(number), name) for number, name in enumerate(series)]
        if len(series) > 1
        else [],
    )


def bar_chart(
    title: str,
    rows: Sequence[tuple[str, Sequence[Number]]],
    segments: Sequence[tuple[str, int]],
    *,
    along: str,
    reference: Number | None = None,
) -> Chart:
    """Returns a bar per row, cut into segments with their numbers; a segment that no row has is left out.

    Args:
        title: above it.
        rows: name and a length per segment, none negative; at least one row.
        segments: name and colour, 1 to 7.
        along: what the axis is, unit included.
        reference: where a line is drawn from top to bottom.
    """
    axis = Axis.around([sum(lengths) for _, lengths in rows])
    bottom = _ROW * len(rows)
    left = room_for([name for name, _ in rows], _MOST_NAME)
    parts = list(_columns(axis, bottom, along, reference=None))
    for place, (name, lengths) in enumerate(rows):
        top, start = _ROW * place, 0.0
        parts.append(_name(name, left, top + _ROW / 2))
        for (segment, colour), length in zip(segments, lengths, strict=True):
            if length > 0:
                parts.append(_segment(axis, start, length, top, colour, f"{name}, {segment}"))
            start += length
    if reference is not None:
        parts.append(_upright(axis, reference, bottom, "limit"))
    used = [k for k in range(len(segments)) if any(lengths[k] > 0 for _, lengths in rows)]
    return Chart(
        title=title,
        spoken=f"{title}, {along}: "
        + "; ".join(
            f"{name} " + ", ".join(f"{segments[k][0]} {plain(lengths[k])}" for k in used)
            for name, lengths in rows
        ),
        drawing=join(parts),
        height=bottom,
        margins=(left, 14, 6, _BOTTOM),
        legend=[(filled_swatch(segments[k][1]), segments[k][0]) for k in used],
    )


def _reach(rows: Sequence[Row], reference: Number | None) -> Axis:
    """From the lowest to the highest end of a narrow interval, so that a wide one does not flatten the rest."""
    ends = [] if reference is None else [reference]
    for dot in (dot for row in rows for dot in row.dots if dot is not None):
        ends += [dot.value, *(dot.narrow or ())]
    low, high = min(ends), max(ends)
    room = 0.05 * (high - low) or 1.0
    return Axis(low=low - room, high=high + room)


def _columns(
    axis: Axis, bottom: Number, along: str, *, reference: Number | None, signed: bool = False
) -> Iterator[Markup]:
    for tick in round_numbers(axis.low, axis.high):
        yield _upright(axis, tick, bottom, "grid")
        text = f"{tick:+g}" if signed and tick else plain(tick)
        share = axis.share(tick)
        anchor = "end" if share > 0.97 else "middle"
        yield element("text", text, x=percent(share), y=bottom + 17, text_anchor=anchor)
    yield element("text", along, x="100%", y=bottom + 34, text_anchor="end")
    if reference is not None:
        yield _upright(axis, reference, bottom, "zero")


def _upright(axis: Axis, value: Number, bottom: Number, kind: str) -> Markup:
    at = percent(axis.share(value))
    return element("line", class_=kind, x1=at, x2=at, y1=-4, y2=f"{bottom:g}")


def _name(name: str, left: int, middle: Number) -> Markup:
    shown = fitting(name, left)
    title = [element("title", name)] if shown != name else []
    return element(
        "text", shown, *title, class_="name", x=-8, y=f"{middle + 4:.1f}", text_anchor="end"
    )


def _marked(dot: Dot, axis: Axis, y: Number, number: int, words: str) -> Markup:
    """A dot with its intervals; what is beyond the axis ends in an arrow at its edge."""
    at, style = f"{y:.1f}", f"--mark:var(--series-{number % 7 + 1})"
    lines = [
        element(
            "line",
            class_=kind,
            x1=percent(axis.share(ends[0])),
            x2=percent(axis.share(ends[1])),
            y1=at,
            y2=at,
        )
        for kind, ends in (("wide", dot.wide), ("narrow", dot.narrow))
        if ends is not None
    ]
    beyond = (dot.value > axis.high) - (dot.value < axis.low)
    shape = _shape(number, beyond)
    # A symbol is drawn around the origin of its own drawing, which is placed in per cent.
    placed = element(
        "svg", shape, x=percent(axis.share(dot.value)), y=at, overflow="visible", aria_hidden="true"
    )
    return element("g", element("title", words), *lines, placed, class_="mark", style=style)


def _shape(number: int, beyond: int = 0) -> Markup:
    if beyond:
        return element("path", d="M-4,-5 L5,0 L-4,5 Z" if beyond > 0 else "M4,-5 L-5,0 L4,5 Z")
    if number % _SHAPES == 0:
        return element("circle", r=4.5)
    if number % _SHAPES == 1:
        return element("path", d="M0,-6 L6,0 L0,6 L-6,0 Z")
    if number % _SHAPES == 2:
        return element("rect", x=-4, y=-4, width=8, height=8)
    return element("circle", r=4, class_="hollow")


def _swatch(number: int) -> Markup:
    return element(
        "g",
        element("line", class_="narrow", x1=0, x2=30, y1=6, y2=6),
        element("g", _shape(number), transform="translate(15 6)"),
        class_="mark",
        style=f"--mark:var(--series-{number % 7 + 1})",
    )


def _segment(
    axis: Axis, start: Number, length: Number, top: Number, colour: int, words: str
) -> Markup:
    width = axis.share(start + length) - axis.share(start)
    parts = [
        element("title", f"{words}: {plain(length)}"),
        element(
            "rect",
            x=percent(axis.share(start)),
            y=top + 3,
            width=percent(width),
            height=_ROW - 6,
            style=f"fill:var(--series-{colour})",
        ),
    ]
    if width > _SHOWN_SEGMENT:
        middle = percent(axis.share(start) + width / 2)
        parts.append(
            element(
                "text",
                plain(length),
                class_="inside",
                x=middle,
                y=top + _ROW / 2 + 4,
                text_anchor="middle",
            )
        )
    return element("g", *parts)
