"""Sees a collapse while a run goes on: a bank of Page's cumulative sums on standardised signals.

A policy can raise the perception KL without looking, by breaking what it writes when the picture is masked; or
the form of its answers breaks all at once while the KL stands still (docs/results/lab_collapse.md and
lab_safeguard.md). Each signal is compared with the run's own first rollouts, so that one limit holds for all runs.
`papo.statistics.judge_collapse` is the offline sibling: it judges a whole run, this one each rollout as it comes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

NORMAL_MAD = 1.4826
"""Times the median of absolute deviations: the standard deviation of a normal distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """What the detector saw.

    Attributes:
        rollout: counted from 1, at whose end it rang.
        signals: names of the signals above the limit, the largest first.
        statistic: the largest of them, in scales.
        limit: that it passed.
    """

    rollout: int
    signals: tuple[str, ...]
    statistic: float
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """How a signal is read.

    Attributes:
        columns: of metrics.csv, of which the first with a number counts; "-" before one: 1 minus its value.
        allowance: scales above the baseline that are no excess.
        floor: the least scale, in the units of the signal (nats of its logarithm where `logarithm`).
        logarithm: whether ratios count, not differences.
    """

    columns: Sequence[str]
    allowance: float
    floor: float
    logarithm: bool = False

    def read(self, row: Mapping[str, float]) -> float:
        """Returns the signal's value in a row, nan where there is no evidence."""
        for column in self.columns:
            value = float(row.get(column.removeprefix("-"), math.nan))
            if column.startswith("-"):
                value = 1.0 - value
            if self.logarithm:
                value = math.log(value) if value > 0 else math.nan
            if math.isfinite(value):
                return value
        return math.nan


class CollapseDetector:
    """Rings where the cumulative excess of a signal passes the limit.

    Per signal x with location m and scale s of the baseline, S <- max(0, S + min((x - m) / s - allowance, cap))
    (Page 1954, Biometrika 41). A value that is no number leaves S as it is.

    Args:
        signals: name -> how it is read; a mapping of the fields of `Signal` will do.
        limit: of S, in scales.
        baseline_rollouts: of the first values, whose median and scatter are the location and the scale.
        excess_cap: of one rollout, in scales.
    """

    def __init__(
        self,
        *,
        signals: Mapping[str, Signal | Mapping[str, Any]],
        limit: float,
        baseline_rollouts: int,
        excess_cap: float,
    ) -> None:
        self.signals = {
            name: signal if isinstance(signal, Signal) else Signal(**signal)
            for name, signal in signals.items()
        }
        self.limit, self.baseline_rollouts, self.excess_cap = limit, baseline_rollouts, excess_cap
        self.rollout = 0
        self._baselines: dict[str, list[float]] = {name: [] for name in self.signals}
        self._sums: dict[str, float] = dict.fromkeys(self.signals, 0.0)

    @property
    def statistics(self) -> dict[str, float]:
        """Where each signal stands, in scales."""
        return dict(self._sums)

    def update(self, signals: Mapping[str, float]) -> Alarm | None:
        """Returns an alarm where a signal is above the limit.

        Args:
            signals: one rollout's row of metrics.csv; what is absent or no number is no evidence.
        """
        self.rollout += 1
        for name, signal in self.signals.items():
            value = signal.read(signals)
            if math.isnan(value):
                continue
            baseline = self._baselines[name]
            if len(baseline) < self.baseline_rollouts:
                baseline.append(value)
                continue
            location = median(baseline)
            scatter = NORMAL_MAD * median(abs(known - location) for known in baseline)
            excess = (value - location) / max(scatter, signal.floor) - signal.allowance
            self._sums[name] = max(0.0, self._sums[name] + min(excess, self.excess_cap))
        above = sorted(
            (name for name, total in self._sums.items() if total > self.limit),
            key=lambda name: -self._sums[name],
        )
        if not above:
            return None
        return Alarm(
            rollout=self.rollout,
            signals=tuple(above),
            statistic=self._sums[above[0]],
            limit=self.limit,
        )

    def state_dict(self) -> dict[str, Any]:
        """Returns what `load_state_dict` continues from, in plain numbers."""
        return {
            "rollout": self.rollout,
            "baselines": {name: list(values) for name, values in self._baselines.items()},
            "sums": dict(self._sums),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues exactly where `state_dict` was taken."""
        self.rollout = int(state["rollout"])
        self._baselines = {name: list(state["baselines"][name]) for name in self.signals}
        self._sums = {name: float(state["sums"][name]) for name in self.signals}
