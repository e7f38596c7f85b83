"""Learning curves as SVG: a thick line per arm, a thin one per seed; colours are the page's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from papo.reporting.html import Markup, join

_WIDTH, _HEIGHT = 640, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 8, 12, 48
_COLOURS = 6
_MEAN_POINTS = 120
_DASHES = ("", "7 4", "2 3")


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One run: where its points are (rising, rollouts or responses), and their values."""

    places: tuple[float, ...]
    values: tuple[float, ...]


def per_rollout(values: Sequence[float]) -> Curve:
    """Returns a curve of one value per rollout, from the first on."""
    return Curve(places=tuple(float(1 + i) for i in range(len(values))), values=tuple(values))


@dataclass(frozen=True, kw_only=True)
class ArmCurves:
    """The curves of one arm.

    Attributes:
        arm: its name.
        seeds: one curve per seed.
    """

    arm: str
    seeds: tuple[Curve, ...]

    @cached_property
    def mean(self) -> Curve:
        """The mean over seeds, as far as all of them go; straight lines between points."""
        places = self.seeds[0].places
        if any(curve.places != places for curve in self.seeds):
            first = max(curve.places[0] for curve in self.seeds)
            last = max(first, min(curve.places[-1] for curve in self.seeds))
            places = tuple(np.linspace(first, last, _MEAN_POINTS).tolist())
        values = [np.interp(places, curve.places, curve.values) for curve in self.seeds]
        return Curve(places=places, values=tuple(np.mean(values, axis=0).tolist()))


def line_chart(title: str, arms: Sequence[tuple[int, ArmCurves]], *, along: str) -> Markup:
    """Returns a figure; its title and what it shows are read out by screen readers.

    Args:
        title: what the y-axis is.
        arms: with the number that gives each its colour and dash (`arm_style`).
        along: what the x-axis is.
    """
    values = [v for _, arm in arms for curve in arm.seeds for v in curve.values if math.isfinite(v)]
    low, high = min(values, default=0.0), max(values, default=1.0)
    low = min(low, 0.0)
    if high <= low:
        high = low + 1.0
    end = max(curve.places[-1] for _, arm in arms for curve in arm.seeds)

    def line(curve: Curve, style: str) -> Markup:
        points = " ".join(
            f"{_x(place, end):.1f},{_y(value, low, high):.1f}"
            for place, value in zip(curve.places, curve.values, strict=True)
            if math.isfinite(value)
        )
        return Markup('<polyline fill="none" style="{}" points="{}"/>').format(style, points)

    lines = [
        line(curve, f"{arm_style(number)};stroke-width:1;opacity:.35")
        for number, arm in arms
        for curve in arm.seeds
        if len(arm.seeds) > 1
    ]
    lines += [line(arm.mean, f"{arm_style(number)};stroke-width:2.5") for number, arm in arms]
    ends = "; ".join(
        f"{arm.arm} {arm.mean.values[0]:.3g} to {arm.mean.values[-1]:.3g}" for _, arm in arms
    )
    return Markup(
        '<figure class="chart"><svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">'
        "<title>{label}</title>{axes}{lines}</svg><figcaption>{title}</figcaption></figure>"
    ).format(
        width=_WIDTH,
        height=_HEIGHT,
        label=f"{title} by {along}, mean over seeds, from first to last: {ends}",
        axes=_axes(low, high, end, along),
        lines=join(lines),
        title=title,
    )


def legend(arms: Sequence[str]) -> Markup:
    """Returns which line is which arm."""
    return Markup('<ul class="legend">{}</ul>').format(
        join(
            Markup(
                '<li><svg width="34" height="10" aria-hidden="true"><line x1="1" y1="5" x2="33" y2="5" '
                'style="{};stroke-width:3"/></svg> {}</li>'
            ).format(arm_style(number), arm)
            for number, arm in enumerate(arms)
        )
    )


def arm_style(number: int) -> str:
    """Returns the CSS of an arm's lines: a colour of the page, dashed once all are taken."""
    dash = _DASHES[number // _COLOURS % len(_DASHES)]
    colour = f"stroke:var(--series-{number % _COLOURS + 1})"
    return f"{colour};stroke-dasharray:{dash}" if dash else colour


def _x(place: float, end: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * place / end


def _y(value: float, low: float, high: float) -> float:
    return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1.0 - (value - low) / (high - low))


def _axes(low: float, high: float, end: float, along: str) -> Markup:
    parts = []
    for tick in ticks(low, high):
        y = _y(tick, low, high)
        parts.append(
            Markup(
                '<line x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}" style="stroke:var(--line)"/>'
                '<text x="{3}" y="{4:.1f}" text-anchor="end">{5}</text>'
            ).format(_LEFT, _WIDTH - _RIGHT, y, _LEFT - 6, y + 4, f"{tick:g}")
        )
    # Rollouts and responses are counted: no ticks between whole ones.
    for tick in (tick for tick in ticks(0.0, end) if tick == round(tick)):
        anchor = "end" if _x(tick, end) > _WIDTH - 40 else "middle"
        parts.append(
            Markup('<text x="{:.1f}" y="{}" text-anchor="{}">{:.0f}</text>').format(
                _x(tick, end), _HEIGHT - 26, anchor, tick
            )
        )
    parts.append(
        Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(
            (_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 4, along
        )
    )
    return join(parts)


def ticks(low: float, high: float) -> list[float]:
    """Returns three to six round numbers from end to end."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]
