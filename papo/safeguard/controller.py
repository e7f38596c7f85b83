"""Holds signals of a run near where they began by one factor on the weights of what drives them.

As long as no signal has left its bounds the factor is exactly 1, and the run is what it would be without a controller.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from papo.safeguard.detector import first_number

Number = float | int


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A signal and how far it may leave the place where the run began.

    Attributes:
        columns: of metrics.csv, of which the first with a number counts; "-NAME": 1 minus its value.
        logarithm: whether ratios count, not differences.
        below, above: the distance, in the units of the signal (nats of its logarithm), at which steered weights begin to
            fall; None: that side is open.
        width: so far beyond a bound they fall at full speed.

    Raises:
        ValueError: no bound, or a distance that is not positive.
    """

    columns: Sequence[str]
    width: Number
    below: Number | None = None
    above: Number | None = None
    logarithm: bool = False

    def __post_init__(self) -> None:
        if self.below is None and self.above is None:
            raise ValueError(
                f"a held signal has a bound; got none for {self.columns}. Set below or above"
            )
        distances = {"below": self.below, "above": self.above, "width": self.width}
        for name, value in distances.items():
            if value is not None and not value > 0:
                raise ValueError(f"{name} is positive; got {value} for {self.columns}")

    def read(self, row: Mapping[str, float]) -> float:
        """Returns the signal's value in a row, nan where it has none."""
        return first_number(self.columns, row, logarithm=self.logarithm)

    def excess(self, deviation: float) -> float:
        """Returns how far a signal that has moved so far is beyond its bound, 0 inside to 1 at `width` beyond."""
        beyond = max(
            0.0 if self.above is None else deviation - self.above,
            0.0 if self.below is None else -self.below - deviation,
            0.0,
        )
        return min(1.0, beyond / self.width)


class Controller:
    """One factor, 0 to 1: falls while a signal is beyond its bound, rises again while all are inside.

    A signal is smoothed, s <- memory s + (1 - memory) x, and compared with the mean of its first values. With e the
    largest excess: factor <- factor (1 - fall e) where e > 0, else min(ceiling, rise factor). The ceiling is 1 until a
    rollback lowers it.

    Args:
        signals: name -> how it is held; a mapping of the fields of `Held` will do.
        baseline_rollouts: of a signal's first values; until they are there it holds nothing.
        memory: of the smoothed signal, what it keeps of its last value: 0 reads the rollout alone.
        fall: share of the factor that one rollout at full excess takes.
        rise: what a rollout inside all bounds multiplies the factor by.
        least: the factor below this is 0, and rises from this.

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(
        self,
        *,
        signals: Mapping[str, Held | Mapping[str, Any]],
        baseline_rollouts: int,
        memory: Number,
        fall: Number,
        rise: Number,
        least: Number,
    ) -> None:
        for name, value, low, high in (
            ("memory", memory, 0.0, 1.0),
            ("fall", fall, 0.0, 1.0),
            ("least", least, 0.0, 1.0),
            ("rise", rise, 1.0, math.inf),
        ):
            if not low <= value <= high or (name in ("memory", "least") and value == 1.0):
                raise ValueError(f"{name} is between {low} and {high}; got {value}")
        if baseline_rollouts < 1:
            raise ValueError(f"baseline_rollouts is 1 or more; got {baseline_rollouts}")
        self.baseline_rollouts = baseline_rollouts
        self.signals = {
            name: held if isinstance(held, Held) else Held(**held) for name, held in signals.items()
        }
        self.memory, self.fall, self.rise, self.least = memory, fall, rise, least
        self.ceiling = self.factor = 1.0
        self._first: dict[str, list[float]] = {name: [] for name in self.signals}
        self._smoothed: dict[str, float] = {}

    def update(self, signals: Mapping[str, float]) -> str | None:
        """Moves the factor by one rollout's row of metrics.csv; what is absent or no number holds nothing.

        Returns:
            The signal that is furthest beyond its bound; None where all are inside.
        """
        excesses = {}
        for name, held in self.signals.items():
            value = held.read(signals)
            if math.isnan(value):
                continue
            first = self._first[name]
            if len(first) < self.baseline_rollouts:
                first.append(value)
                continue
            began = sum(first) / len(first)
            before = self._smoothed.get(name, began)
            self._smoothed[name] = self.memory * before + (1 - self.memory) * value
            excesses[name] = held.excess(self._smoothed[name] - began)
        furthest = max(excesses, key=lambda name: excesses[name], default=None)
        if furthest is None:
            return None
        if excesses[furthest] > 0:
            self.factor *= 1 - self.fall * excesses[furthest]
            self.factor = self.factor if self.factor >= self.least else 0.0
            return furthest
        self.factor = min(self.ceiling, max(self.rise * self.factor, self.least))
        return None

    def shrink(self, by: float) -> None:
        """Lowers for good what the factor may rise to, and the factor to that."""
        self.ceiling *= by
        self.factor = min(self.factor, self.ceiling)
        self._smoothed = {}

    def state_dict(self) -> dict[str, Any]:
        """Returns what `load_state_dict` goes on from, in plain numbers."""
        return {
            "factor": self.factor,
            "ceiling": self.ceiling,
            "first": {name: list(values) for name, values in self._first.items()},
            "smoothed": dict(self._smoothed),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on exactly where `state_dict` was taken."""
        self.factor, self.ceiling = float(state["factor"]), float(state["ceiling"])
        self._first = {name: list(state["first"][name]) for name in self.signals}
        self._smoothed = dict(state["smoothed"])
