"""Small charts as inline SVG: lines over rollouts, and areas that add up.

Colours are the page's (`--series-1` to `--series-7`), so that charts follow its light and dark mode.
Lines of one chart also differ in their dashes, areas in their order, which the legend repeats.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from papo.reporting.html import Markup, join

WIDTH, HEIGHT = 400, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 10, 10, 26
_DASHES = ("", "6 3", "2 3", "8 3 2 3")
_MAX_POINTS = 300
"""Of a drawn line; longer curves keep the extremes of every stretch."""

CHART_STYLE = """
.charts { display: grid; gap: 1.25rem 1.5rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
.charts.wide { grid-template-columns: minmax(0, 30rem); }
.chart figcaption { color: var(--ink); font-weight: 600; }
.chart svg { display: block; width: 100%; height: auto; }
.chart text { fill: var(--soft); font-size: 12px; }
.chart .grid { stroke: var(--line); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1rem; margin: 0; padding: 0; font-size: .875rem; }
.legend svg { display: inline-block; width: 30px; height: 10px; }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A named curve.

    Attributes:
        name: in the legend.
        values: one per step, NaN where there is none.
        colour: 1 to 7; None for the next one.
    """

    name: str
    values: Sequence[float]
    colour: int | None = None


def line_chart(title: str, steps: Sequence[int], series: Sequence[Series]) -> Markup:
    """Returns a figure of up to four lines, whose text equivalent gives ends and extremes.

    Args:
        title: what is drawn, unit included.
        steps: rollout of each value, ascending.
        series: as long as `steps`.
    """
    values = [value for line in series for value in line.values if math.isfinite(value)]
    scale = _Scale.around(steps, min(values, default=0.0), max(values, default=0.0))
    lines = []
    for number, line in enumerate(series):
        style = (
            f"stroke:var(--series-{line.colour or number + 1});stroke-dasharray:{_DASHES[number]}"
        )
        for stretch in _finite_stretches(_thinned(list(zip(steps, line.values, strict=True)))):
            points = [(scale.x(step), scale.y(value)) for step, value in stretch]
            if len(points) == 1:
                lines.append(
                    Markup(
                        '<circle cx="{:.1f}" cy="{:.1f}" r="3" fill="var(--series-{})"/>'
                    ).format(*points[0], line.colour or number + 1)
                )
            else:
                lines.append(
                    Markup(
                        '<polyline fill="none" stroke-width="2" style="{}" points="{}"/>'
                    ).format(style, _points(points))
                )
    legend = [
        Markup(
            '<svg aria-hidden="true" viewBox="0 0 30 10"><line x1="0" x2="30" y1="5" y2="5" stroke-width="2.5" '
            'style="stroke:var(--series-{});stroke-dasharray:{}"/></svg> {}'
        ).format(line.colour or number + 1, _DASHES[number], line.name)
        for number, line in enumerate(series)
    ]
    spoken = "; ".join(f"{line.name} {_summary(line.values)}" for line in series)
    return _figure(
        title, f"{title}: {spoken}", [*scale.axes(), *lines], legend if len(series) > 1 else []
    )


def area_chart(title: str, steps: Sequence[int], series: Sequence[Series]) -> Markup:
    """Returns a figure of up to seven areas on top of one another, the first at the bottom.

    Args:
        title: what is drawn, unit included.
        steps: rollout of each value, ascending.
        series: as long as `steps`, none negative; what is not finite counts as 0.
    """
    # One rollout is an area too: it is drawn as wide as the chart.
    columns = [list(steps) if len(steps) > 1 else [steps[0], steps[0] + 1]]
    repeat = 1 if len(steps) > 1 else 2
    stacked = [[0.0] * len(columns[0])]
    for layer in series:
        heights = [value if math.isfinite(value) else 0.0 for value in layer.values] * repeat
        stacked.append([below + height for below, height in zip(stacked[-1], heights, strict=True)])
    scale = _Scale.around(columns[0], 0.0, max(stacked[-1]))
    kept = _even_steps(len(columns[0]))
    areas = []
    for number, (lower, upper) in enumerate(pairwise(stacked)):
        outline = [(scale.x(columns[0][k]), scale.y(upper[k])) for k in kept]
        outline += [(scale.x(columns[0][k]), scale.y(lower[k])) for k in reversed(kept)]
        areas.append(
            Markup(
                '<polygon stroke="var(--paper)" stroke-width="1" style="fill:var(--series-{})" points="{}"/>'
            ).format(series[number].colour or number + 1, _points(outline))
        )
    legend = [
        Markup(
            '<svg aria-hidden="true" viewBox="0 0 30 10"><rect width="30" height="10" '
            'style="fill:var(--series-{})"/></svg> {}'
        ).format(layer.colour or number + 1, layer.name)
        for number, layer in reversed(list(enumerate(series)))
    ]
    spoken = "; ".join(f"{layer.name} {_summary(layer.values)}" for layer in series)
    return _figure(title, f"{title}, from the bottom: {spoken}", [*scale.axes(), *areas], legend)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    first: int
    last: int
    low: float
    high: float

    @classmethod
    def around(cls, steps: Sequence[int], low: float, high: float) -> "_Scale":
        """Down to zero, so that heights can be compared; with some height where all is equal."""
        # Bounded, so that differences are finite numbers too.
        low, high = max(min(low, 0.0), -1e300), min(max(high, 0.0), 1e300)
        if high - low < 1e-300:
            high = low + 1.0
        return cls(first=min(steps), last=max(steps), low=low, high=high)

    def x(self, step: int) -> float:
        share = (step - self.first) / max(1, self.last - self.first)
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * share

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return _TOP + (HEIGHT - _TOP - _BOTTOM) * (1.0 - share)

    def axes(self) -> Iterator[Markup]:
        for tick in _ticks(self.low, self.high):
            yield Markup(
                '<line class="grid" x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/>'
                '<text x="{3}" y="{4:.1f}" text-anchor="end">{5}</text>'
            ).format(
                _LEFT, WIDTH - _RIGHT, self.y(tick), _LEFT - 6, self.y(tick) + 4, f"{tick:.4g}"
            )
        middle = (self.first + self.last) // 2
        for step, anchor in ((self.first, "start"), (middle, "middle"), (self.last, "end")):
            if step == self.first or self.first < step <= self.last:
                yield Markup('<text x="{:.1f}" y="{}" text-anchor="{}">{}</text>').format(
                    self.x(step),
                    HEIGHT - 6,
                    anchor,
                    f"rollout {step}" if step == self.first else step,
                )


def _ticks(low: float, high: float) -> list[float]:
    """Two to six round numbers within the range."""
    rough = high / 4 - low / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    return [
        index * step
        for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def _even_steps(count: int) -> list[int]:
    """Indices from the first to the last, no more than are drawn."""
    kept = min(count, _MAX_POINTS)
    return [round(k * (count - 1) / max(1, kept - 1)) for k in range(kept)]


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most about `_MAX_POINTS` of them: of every stretch the lowest, the highest, what is not finite."""
    if len(points) <= _MAX_POINTS:
        return points
    stretch = math.ceil(2 * len(points) / _MAX_POINTS)
    kept = []
    for start in range(0, len(points), stretch):
        part = range(start, min(start + stretch, len(points)))
        finite = [k for k in part if math.isfinite(points[k][1])]
        if finite:
            chosen = {
                min(finite, key=lambda k: points[k][1]),
                max(finite, key=lambda k: points[k][1]),
            }
            kept += [points[k] for k in sorted(chosen)]
        if len(finite) < len(part):
            kept.append((points[part[-1]][0], math.nan))
    return kept


def _finite_stretches(points: Sequence[tuple[int, float]]) -> Iterator[list[tuple[int, float]]]:
    """A line breaks where a value is missing or not finite."""
    stretch: list[tuple[int, float]] = []
    for point in points:
        if math.isfinite(point[1]):
            stretch.append(point)
        elif stretch:
            yield stretch
            stretch = []
    if stretch:
        yield stretch


def _summary(values: Sequence[float]) -> str:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return "has no finite value"
    missing = len(values) - len(finite)
    return (
        f"from {finite[0]:.3g} to {finite[-1]:.3g}, lowest {min(finite):.3g}, highest {max(finite):.3g}"
        + (f", {missing} values missing or not finite" if missing else "")
    )


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _figure(title: str, spoken: str, drawing: Sequence[Markup], legend: Sequence[Markup]) -> Markup:
    entries = join(Markup("<li>{}</li>").format(entry) for entry in legend)
    return Markup(
        '<figure class="chart"><figcaption>{}</figcaption>'
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>{}</figure>'
    ).format(
        title,
        WIDTH,
        HEIGHT,
        spoken,
        join(drawing),
        Markup('<ul class="legend">{}</ul>').format(entries) if legend else "",
    )
