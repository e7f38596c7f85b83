"""Sees a collapse while a run goes on: the sum of Page's cumulative sums of a few standardised signals.

A policy can raise the perception KL without looking, by breaking what it writes when the picture is masked; or
its answers lose their form within a few rollouts while the KL stands still (docs/results/lab_safeguard.md). Each
signal is compared with the run's own recent rollouts in units of its own scatter, so that one limit holds for all runs.
`papo.statistics.judge_collapse` is the offline sibling: it judges a run by its whole, this one each rollout as it comes.
"""

import math
from bisect import insort
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

NORMAL_MAD = 1.4826
"""Times the median of absolute deviations: the standard deviation of a normal distribution."""
FEW = 6.0
"""The median of n moves is raised by a share of FEW / n: of few it may be far too small, and noise would ring."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """What the detector saw.

    Attributes:
        rollout: counted from 1, at whose end it rang.
        signals: those in excess, the largest first.
        statistic: the sum of their excesses, in scales.
        limit: that it passed.
    """

    rollout: int
    signals: tuple[str, ...]
    statistic: float
    limit: float


def first_number(
    columns: Sequence[str], row: Mapping[str, float], *, logarithm: bool = False
) -> float:
    """Returns the first number of some columns of a row, or its logarithm; nan where there is none.

    Args:
        columns: "-NAME" is 1 minus its value.
        row: of metrics.csv.
        logarithm: whether ratios count, not differences.
    """
    for column in columns:
        value = float(row.get(column.removeprefix("-"), math.nan))
        if column.startswith("-"):
            value = 1.0 - value
        if logarithm:
            value = math.log(value) if value > 0 else math.nan
        if math.isfinite(value):
            return value
    return math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """How a signal is read; it speaks of a collapse where it rises.

    Attributes:
        columns: of metrics.csv, of which the first with a number counts; "-NAME": 1 minus its value.
        floor: the least scale, in the units of the signal (nats of its logarithm where `logarithm`).
        memory: rollouts that its reference remembers: what changes more slowly is no excess.
        logarithm: whether ratios count, not differences.
    """

    columns: Sequence[str]
    floor: float
    memory: int
    logarithm: bool = False

    def read(self, row: Mapping[str, float]) -> float:
        """Returns the signal's value in a row, nan where there is no evidence."""
        return first_number(self.columns, row, logarithm=self.logarithm)


@dataclass(slots=True, kw_only=True)
class _Watched:
    """One signal so far.

    Attributes:
        first: its values until the baseline is full.
        last: its last value.
        moves: how far it moved from one value to the next, sorted.
        reference: an average of its values that forgets; None before the baseline is full.
        excess: the cumulative sum, in scales.
    """

    first: list[float] = field(default_factory=list)
    last: float | None = None
    moves: list[float] = field(default_factory=list)
    reference: float | None = None
    excess: float = 0.0


class CollapseDetector:
    """Rings where the cumulative excesses of all signals together pass the limit.

    Per signal with reference m and scale s, S <- max(0, S + min((x - m) / s - allowance, cap)) (Page 1954, Biometrika
    41); the statistic is the sum of these S over the signals that a run has (Mei 2010, Biometrika 97). m is the median of
    the baseline, then follows the values with weight 1 / memory. s is at least the floor, else the scatter of
    successive values so far, since the signal itself is meant to move (von Neumann 1941, Annals of Mathematical
    Statistics 12), from their median (`NORMAL_MAD`, `FEW`). A value that is no number changes nothing.

    Args:
        signals: name -> how it is read; a mapping of the fields of `Signal` will do.
        limit: of the statistic, in scales.
        allowance: of a rollout, in scales.
        excess_cap: the most of one rollout and signal, in scales.
        baseline_rollouts: first values of a signal, whose median is the first m.

    Raises:
        ValueError: a number is out of its range; names the key.
    """

    def __init__(
        self,
        *,
        signals: Mapping[str, Signal | Mapping[str, Any]],
        limit: float,
        allowance: float,
        excess_cap: float,
        baseline_rollouts: int,
    ) -> None:
        self.signals = {
            name: one if isinstance(one, Signal) else Signal(**one) for name, one in signals.items()
        }
        self.limit, self.allowance, self.excess_cap = limit, allowance, excess_cap
        self.baseline_rollouts = baseline_rollouts
        above = {"limit": limit, "excess_cap": excess_cap}
        least = {"allowance": (allowance, 0), "baseline_rollouts": (baseline_rollouts, 1)}
        for name, one in self.signals.items():
            above[f"signals.{name}.floor"] = one.floor
            least[f"signals.{name}.memory"] = (one.memory, 1)
        for key, value in above.items():
            if not value > 0:
                raise ValueError(f"safeguard.detector.{key} is above 0; got {value}")
        for key, (value, lowest) in least.items():
            if not value >= lowest:
                raise ValueError(f"safeguard.detector.{key} is at least {lowest}; got {value}")
        self.rollout = 0
        self._watched = {name: _Watched() for name in self.signals}

    @property
    def statistics(self) -> dict[str, float]:
        """The cumulative excess of each signal, in scales; 0 without evidence."""
        return {name: one.excess for name, one in self._watched.items()}

    @property
    def statistic(self) -> float:
        """Their sum: an alarm above the limit."""
        return math.fsum(self.statistics.values())

    def update(self, signals: Mapping[str, float]) -> Alarm | None:
        """Returns an alarm where the statistic is above the limit; it may ring again in the next rollout.

        Args:
            signals: one rollout's row of metrics.csv; what is absent or no number is no evidence.
        """
        self.rollout += 1
        for name, signal in self.signals.items():
            if not math.isnan(value := signal.read(signals)):
                self._watch(self._watched[name], value, signal)
        if self.statistic <= self.limit:
            return None
        excesses = {name: excess for name, excess in self.statistics.items() if excess > 0}
        return Alarm(
            rollout=self.rollout,
            signals=tuple(sorted(excesses, key=lambda name: -excesses[name])),
            statistic=self.statistic,
            limit=self.limit,
        )

    def _watch(self, one: _Watched, value: float, signal: Signal) -> None:
        scale = max(signal.floor, _scatter(one.moves))
        if one.last is not None:
            insort(one.moves, abs(value - one.last))
        one.last = value
        if one.reference is None:
            one.first.append(value)
            if len(one.first) == self.baseline_rollouts:
                one.reference = median(one.first)
            return
        distance = value - one.reference
        step = min(distance / scale - self.allowance, self.excess_cap)
        one.excess = max(0.0, one.excess + step)
        most = self.excess_cap * scale
        one.reference += max(-most, min(distance, most)) / signal.memory

    def state_dict(self) -> dict[str, Any]:
        """Returns what `load_state_dict` continues from, in plain numbers."""
        watched = {name: asdict(one) for name, one in self._watched.items()}
        return {"rollout": self.rollout, "watched": watched}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues exactly where `state_dict` was taken.

        Raises:
            ValueError: it is of a detector with other signals.
        """
        if set(state["watched"]) != set(self.signals):
            raise ValueError(
                f"a detector continues with the signals it began with, {sorted(state['watched'])}; got "
                f"{sorted(self.signals)}. Set safeguard.detector.signals to those"
            )
        self.rollout = int(state["rollout"])
        self._watched = {
            name: _Watched(**{**known, "first": [*known["first"]], "moves": [*known["moves"]]})
            for name, known in state["watched"].items()
        }


def _scatter(moves: Sequence[float]) -> float:
    """The standard deviation of values that moved so far one after another; 0 without any."""
    if not moves:
        return 0.0
    return NORMAL_MAD * (1 + FEW / len(moves)) * median(moves) / math.sqrt(2)


def replay(detector: CollapseDetector, curves: Mapping[str, Sequence[float]]) -> list[Alarm | None]:
    """Returns what a new detector would have said after each rollout of a recorded run.

    Args:
        detector: that has seen nothing.
        curves: column of metrics.csv -> a value per rollout.
    """
    rollouts = max(map(len, curves.values()), default=0)
    return [
        detector.update({name: values[place] for name, values in curves.items()})
        for place in range(rollouts)
    ]
