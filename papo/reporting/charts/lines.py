"""Curves over rollouts, layers or responses: lines with bands, and areas that add up."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from papo.reporting.charts.axes import (
    Axis,
    Chart,
    Number,
    Scale,
    element,
    filled_swatch,
    percent,
    plain,
    room_for,
    round_numbers,
)
from papo.reporting.html import Markup, join
from papo.reporting.numbers import finite

HEIGHT, _TOP, _BOTTOM = 150, 22, 22
Height = Callable[[Number], float]
"""Of a value, in pixels from the top."""

_STRETCH = 1000  # units of the lines' own drawing, which the page stretches
_COLOURS = 7
_DASHES = ("", "6 3", "2 3", "8 3 2 3")
_MAX_POINTS = 300
"""Of a drawn line; longer curves keep the extremes of every stretch."""
_MAX_READOUTS = 40
"""Places over which a pointer reads the values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A named curve.

    Attributes:
        name: in the legend.
        values: one per step, NaN where there is none.
        colour: 1 to 7; None for the next one.
        band: low and high per step, e.g. a 95 % interval; NaN where there is none.
    """

    name: str
    values: Sequence[Number]
    colour: int | None = None
    band: tuple[Sequence[Number], Sequence[Number]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A value that a curve should stay below; what lies above it is shaded."""

    value: Number
    text: str


def line_chart(
    title: str,
    steps: Sequence[Number],
    series: Sequence[Series],
    *,
    scale: Scale = "linear",
    is_percent: bool = False,
    limit: Limit | None = None,
    top: Number | None = None,
    along: str = "rollout",
) -> Chart:
    """Returns lines, whose text equivalent gives ends and extremes.

    Args:
        title: what is drawn, unit included.
        steps: where each value lies, ascending, at least one.
        series: as long as `steps`.
        scale: of the values.
        is_percent: values are shares, written as per cent.
        limit: drawn as a line across.
        top: the axis reaches at least there, so that charts beside one another have one scale.
        along: what the steps count.
    """
    drawn = [value for line in series for value in (*line.values, *_ends_of(line.band))]
    axis = Axis.around(
        [*drawn, *([limit.value] if limit else []), *([] if top is None else [top])],
        scale=scale,
        is_percent=is_percent,
    )
    x, y = _Steps(steps, along), _height_of(axis)
    shapes = [
        _area(
            [(step, low, high) for step, low, high in zip(steps, *line.band, strict=True)],
            x,
            y,
            style=f"fill:var(--series-{_colour(line, number)});opacity:.2",
        )
        for number, line in enumerate(series)
        if line.band
    ]
    dots = []
    for number, line in enumerate(series):
        style = f"stroke:var(--series-{_colour(line, number)});stroke-dasharray:{_dashes(number)}"
        for stretch in _finite_stretches(_thinned(list(zip(steps, line.values, strict=True)))):
            if len(stretch) == 1:
                dots.append(_dot(x.share(stretch[0][0]), y(stretch[0][1]), _colour(line, number)))
            else:
                points = _points([(x.share(step), y(value)) for step, value in stretch])
                shapes.append(element("polyline", class_="curve", style=style, points=points))
    return Chart(
        title=title,
        spoken=f"{title}: " + "; ".join(f"{line.name} {_summary(line.values)}" for line in series),
        drawing=join(
            [
                *_limit(limit, y),
                *_axes(axis, x),
                _stretched(shapes),
                *dots,
                *_readouts(steps, series, x, axis),
            ]
        ),
        height=HEIGHT,
        margins=(room_for(map(axis.text, axis.ticks())), 10, _TOP, _BOTTOM),
        legend=[_legend_line(line, number) for number, line in enumerate(series)]
        if len(series) > 1
        else [],
        note=_note(axis, limit, drawn),
    )


def area_chart(
    title: str,
    steps: Sequence[Number],
    series: Sequence[Series],
    *,
    is_percent: bool = False,
    along: str = "rollout",
) -> Chart:
    """Returns up to seven areas on top of one another, the first at the bottom.

    Args:
        title: what is drawn, unit included.
        steps: where each value lies, ascending, at least one.
        series: as long as `steps`, none negative; what is not finite counts as 0.
        is_percent: values are shares, written as per cent.
        along: what the steps count.
    """
    # One step is an area too: it is drawn as wide as the chart.
    places = list(steps) if len(steps) > 1 else [steps[0], steps[0] + 1]
    stacked = [[0.0] * len(places)]
    for layer in series:
        heights = [value if math.isfinite(value) else 0.0 for value in layer.values]
        heights *= 1 if len(steps) > 1 else 2
        stacked.append([below + height for below, height in zip(stacked[-1], heights, strict=True)])
    axis = Axis.around(stacked[-1], is_percent=is_percent)
    x, y = _Steps(places, along), _height_of(axis)
    kept = _even(len(places), _MAX_POINTS)
    areas = [
        _area(
            [(places[k], lower[k], upper[k]) for k in kept],
            x,
            y,
            style=f"fill:var(--series-{_colour(series[number], number)})",
        )
        for number, (lower, upper) in enumerate(pairwise(stacked))
    ]
    spoken = "; ".join(f"{layer.name} {_summary(layer.values)}" for layer in series)
    return Chart(
        title=title,
        spoken=f"{title}, from the bottom: {spoken}",
        drawing=join(
            [*_axes(axis, x), _stretched(areas), *_readouts(steps, series, x, axis, numbers=True)]
        ),
        height=HEIGHT,
        margins=(room_for(map(axis.text, axis.ticks())), 10, _TOP, _BOTTOM),
        legend=[
            (filled_swatch(_colour(layer, number)), layer.name)
            for number, layer in reversed(list(enumerate(series)))
        ],
    )


class _Steps:
    """Where steps lie between the left end, 0, and the right one, 1."""

    def __init__(self, steps: Sequence[Number], along: str) -> None:
        self.first, self.last, self.along = min(steps), max(steps), along

    def share(self, step: Number) -> float:
        return (step - self.first) / max(1, self.last - self.first)

    def ticks(self) -> Iterator[tuple[float, str, str]]:
        """Place, anchor and text; the first says what is counted, the others keep clear of it."""
        yield 0.0, "start", f"{self.along} {plain(self.first)}"
        if self.last <= self.first:
            return
        for tick in round_numbers(self.first, self.last):
            # Rollouts and responses are counted: no ticks between whole ones.
            if tick == round(tick) and self.share(tick) > 0.35:
                yield self.share(tick), "end" if self.share(tick) > 0.95 else "middle", plain(tick)


def _colour(line: Series, number: int) -> int:
    return line.colour or number % _COLOURS + 1


def _dashes(number: int) -> str:
    return _DASHES[number % len(_DASHES)]


def _height_of(axis: Axis) -> Height:
    return lambda value: HEIGHT * (1.0 - axis.share(value))


def _axes(axis: Axis, x: _Steps) -> Iterator[Markup]:
    y = _height_of(axis)
    for tick in axis.ticks():
        at = f"{y(tick):.1f}"
        yield element("line", class_="grid", x1=0, x2="100%", y1=at, y2=at)
        yield element("text", axis.text(tick), x=-6, y=f"{y(tick) + 4:.1f}", text_anchor="end")
    for share, anchor, text in x.ticks():
        yield element("text", text, x=percent(share), y=HEIGHT + 17, text_anchor=anchor)


def _limit(limit: Limit | None, y: Height) -> Iterator[Markup]:
    if limit is None:
        return
    at = y(limit.value)
    yield element("rect", class_="beyond", x=0, y=0, width="100%", height=f"{at:.1f}")
    yield element("line", class_="limit", x1=0, x2="100%", y1=f"{at:.1f}", y2=f"{at:.1f}")


def _note(axis: Axis, limit: Limit | None, values: Sequence[Number]) -> str:
    said = []
    if axis.is_log:
        said.append("log axis")
        if any(value < axis.low * 0.999 for value in finite(values)):
            said.append(f"what is below {axis.text(axis.low)} lies at the lower end")
    if limit is not None:
        said.append(f"dashed: {limit.text}")
    return "; ".join(said)


def _stretched(shapes: Sequence[Markup]) -> Markup:
    """Shapes whose x is 0 to `_STRETCH`: as wide as the page makes them, lines as thick as they are."""
    return element(
        "svg",
        *shapes,
        viewBox=f"0 0 {_STRETCH} {HEIGHT}",
        preserveAspectRatio="none",
        width="100%",
        height=HEIGHT,
        aria_hidden="true",
    )


def _area(
    layers: Sequence[tuple[Number, Number, Number]], x: _Steps, y: Height, *, style: str
) -> Markup:
    known = [one for one in layers if math.isfinite(one[1]) and math.isfinite(one[2])]
    outline = [(x.share(step), y(high)) for step, _, high in known]
    outline += [(x.share(step), y(low)) for step, low, _ in reversed(known)]
    return element("polygon", style=style, points=_points(outline))


def _dot(share: float, at: float, colour: int) -> Markup:
    return element(
        "circle", cx=percent(share), cy=f"{at:.1f}", r=3, style=f"fill:var(--series-{colour})"
    )


def _readouts(
    steps: Sequence[Number],
    series: Sequence[Series],
    x: _Steps,
    axis: Axis,
    *,
    numbers: bool = False,
) -> Iterator[Markup]:
    """Under a pointer: where it is and what the lines are there, in their colours, without a script."""
    kept = _even(len(steps), _MAX_READOUTS)
    width = 1 / max(1, len(kept) - 1)
    for k in kept:
        share = x.share(steps[k])
        values = [
            element(
                "tspan",
                f" {axis.text(line.values[k])}",
                style=f"fill:var(--series-{_colour(line, number)})",
            )
            for number, line in enumerate(series)
            if not (numbers and axis.share(line.values[k]) < 0.005)
        ]
        yield element(
            "g",
            element(
                "rect",
                x=percent(max(0.0, share - width / 2)),
                y=0,
                width=percent(width),
                height=HEIGHT,
            ),
            element("line", x1=percent(share), x2=percent(share), y1=0, y2=HEIGHT),
            element(
                "text",
                f"{x.along} {plain(steps[k])}:",
                *values,
                x="100%",
                y=-8,
                text_anchor="end",
            ),
            class_="at",
        )


def _even(count: int, most: int) -> list[int]:
    """Indices from the first to the last, no more than `most`."""
    kept = min(count, most)
    return [round(k * (count - 1) / max(1, kept - 1)) for k in range(kept)]


def _thinned(points: list[tuple[Number, Number]]) -> list[tuple[Number, Number]]:
    """At most about `_MAX_POINTS` of them: of every stretch the lowest, the highest, what is not finite."""
    if len(points) <= _MAX_POINTS:
        return points
    stretch = math.ceil(2 * len(points) / _MAX_POINTS)
    kept = []
    for start in range(0, len(points), stretch):
        part = range(start, min(start + stretch, len(points)))
        known = [k for k in part if math.isfinite(points[k][1])]
        if known:
            extremes = {
                min(known, key=lambda k: points[k][1]),
                max(known, key=lambda k: points[k][1]),
            }
            kept += [points[k] for k in sorted(extremes)]
        if len(known) < len(part):
            kept.append((points[part[-1]][0], math.nan))
    return kept


def _finite_stretches(
    points: Sequence[tuple[Number, Number]],
) -> Iterator[list[tuple[Number, Number]]]:
    """A line breaks where a value is missing or not finite."""
    stretch: list[tuple[Number, Number]] = []
    for point in points:
        if math.isfinite(point[1]):
            stretch.append(point)
        elif stretch:
            yield stretch
            stretch = []
    if stretch:
        yield stretch


def _summary(values: Sequence[Number]) -> str:
    known = finite(values)
    if not known:
        return "has no finite value"
    missing = len(values) - len(known)
    return (
        f"from {known[0]:.3g} to {known[-1]:.3g}, lowest {min(known):.3g}, highest {max(known):.3g}"
        + (f", {missing} values missing or not finite" if missing else "")
    )


def _points(points: Sequence[tuple[Number, Number]]) -> str:
    return " ".join(f"{_STRETCH * x:.1f},{y:.1f}" for x, y in points)


def _ends_of(band: tuple[Sequence[Number], Sequence[Number]] | None) -> Sequence[Number]:
    return () if band is None else (*band[0], *band[1])


def _legend_line(line: Series, number: int) -> tuple[Markup, str]:
    swatch = (
        '<line x1="0" x2="30" y1="6" y2="6" stroke-width="2.5" '
        'style="stroke:var(--series-{});stroke-dasharray:{}"/>'
    )
    return Markup(swatch).format(_colour(line, number), _dashes(number)), line.name
