"""Curves of the arms of a sweep: the mean over seeds with its interval, each arm beside the baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from papo.analysis.sweeps.comparison import SweepSummary
from papo.analysis.watched_curves import WATCHED
from papo.reporting.charts import Chart, Series, line_chart
from papo.statistics import t_interval

_POINTS = 60
"""Of a mean over curves whose points are not at the same places."""
_MOST_LINES = 4


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
    """The curves of one arm, on the places of all arms: one per seed."""

    arm: str
    seeds: tuple[Curve, ...]
    places: tuple[float, ...]

    @cached_property
    def values(self) -> np.ndarray:
        """Seeds by places, as far as all seeds go; straight lines between points."""
        end = min(curve.places[-1] for curve in self.seeds)
        rows = [np.interp(self.places, curve.places, curve.values) for curve in self.seeds]
        return np.where(np.array(self.places) <= end, rows, np.nan)

    def series(self, colour: int, *, bounds: tuple[float, float] | None = None) -> Series:
        """The mean over seeds, with its 95 % t interval where it has bounds."""
        band = None
        if bounds is not None and len(self.seeds) > 1:
            # Behind the end of this arm, where another goes on, there is nothing to bound.
            found = [
                t_interval(column.tolist(), bounds=bounds) if np.isfinite(column).all() else None
                for column in self.values.T
            ]
            lows, highs = zip(
                *((np.nan, np.nan) if one is None else (one.low, one.high) for one in found),
                strict=True,
            )
            band = (lows, highs)
        return Series(
            name=self.arm, values=self.values.mean(axis=0).tolist(), colour=colour, band=band
        )


def arm_curves(curves: Mapping[str, Sequence[Curve]]) -> list[ArmCurves]:
    """Returns the curves of the arms that have any, on places that all share."""
    every = [curve for each in curves.values() for curve in each]
    if not every:
        return []
    places = max((curve.places for curve in every), key=len)
    if any(curve.places != places[: len(curve.places)] for curve in every):
        first, last = max(c.places[0] for c in every), max(c.places[-1] for c in every)
        places = tuple(np.linspace(first, max(first, last), _POINTS).tolist())
    return [
        ArmCurves(arm=arm, seeds=tuple(each), places=places) for arm, each in curves.items() if each
    ]


def learning_curves(summary: SweepSummary) -> list[Chart]:
    """Returns a chart per arm, on one scale: the accuracy of its rollouts beside the baseline's."""
    return _beside_the_baseline(
        summary,
        {
            arm: [per_rollout(run.accuracies) for run in summary.sweep.of_arm(arm)]
            for arm in summary.arms
        },
        along="rollout",
    )


def curves_at_equal_cost(summary: SweepSummary) -> list[Chart]:
    """Returns the same over the responses drawn."""
    return _beside_the_baseline(
        summary,
        {
            arm: [
                Curve(places=run.drawn, values=run.accuracies) for run in summary.sweep.of_arm(arm)
            ]
            for arm in summary.arms
        },
        along="drawn",
    )


def _beside_the_baseline(
    summary: SweepSummary, curves: Mapping[str, Sequence[Curve]], *, along: str
) -> list[Chart]:
    arms = {one.arm: one for one in arm_curves(curves)}
    baseline = arms[summary.baseline].series(6)
    lines = {
        arm: one.series(1, bounds=(0.0, 1.0))
        for arm, one in arms.items()
        if arm != summary.baseline or len(arms) == 1
    }
    top = max(
        value
        for line in (baseline, *lines.values())
        for value in (*line.values, *(line.band or ((), ()))[1])
        if np.isfinite(value)
    )
    return [
        line_chart(
            arm,
            arms[arm].places,
            [line] if arm == summary.baseline else [line, baseline],
            is_percent=True,
            top=top,
            along=along,
        )
        for arm, line in lines.items()
    ]


def drawn_arms(summary: SweepSummary) -> list[str]:
    """Returns the baseline and the arms that came nearest to a collapse, as many as a chart has room for."""
    others = sorted(
        (arm for arm in summary.arms if arm != summary.baseline),
        key=lambda arm: (
            -len(summary.signs[arm].collapsed),
            -summary.signs[arm].rise.get("perception KL", (0.0, 0.0))[1],
        ),
    )
    return [summary.baseline, *others[: _MOST_LINES - 1]]


def sign_charts(summary: SweepSummary) -> list[Chart]:
    """Returns a chart per watched curve, of the arms of `drawn_arms`: means over seeds."""
    charts = []
    for name, watched in WATCHED.items():
        curves = {
            arm: [
                per_rollout(run.curves[watched.column])
                for run in summary.sweep.of_arm(arm)
                if watched.column in run.curves
            ]
            for arm in drawn_arms(summary)
        }
        lines = [
            one.series(6 if one.arm == summary.baseline else 1 + number)
            for number, one in enumerate(arm_curves(curves))
        ]
        if lines:
            title = ", ".join(filter(None, [name[:1].upper() + name[1:], watched.unit]))
            places = arm_curves(curves)[0].places
            charts.append(line_chart(title, places, lines, scale="auto"))
    return charts
