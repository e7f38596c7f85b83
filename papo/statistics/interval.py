"""An estimate with what is unsure about it."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with the interval around it.

    Attributes:
        value: the estimate itself, from the data as they are.
        low, high: ends of the interval.
    """

    value: float
    low: float
    high: float

    @classmethod
    def from_dict(cls, plain: Mapping[str, float]) -> "Interval":
        """Reads back what `dataclasses.asdict` made of one."""
        return cls(value=plain["value"], low=plain["low"], high=plain["high"])

    def negated(self) -> "Interval":
        """Returns the same of the number with the other sign."""
        return Interval(-self.value, -self.high, -self.low)

    def within(self, bounds: tuple[float, float]) -> "Interval":
        """Returns the part of it that is possible: no share is below 0 or above 1."""
        lowest, highest = bounds
        return Interval(self.value, max(lowest, self.low), min(highest, self.high))


@dataclass(frozen=True, slots=True)
class Difference:
    """A paired difference over items, second minus first.

    Attributes:
        interval: of the mean difference.
        p_value: two-sided, of no difference.
    """

    interval: Interval
    p_value: float


@dataclass(frozen=True, slots=True)
class MeanDifference:
    """A paired difference over seeds or starts, second minus first.

    Attributes:
        value: the mean difference.
        number: of the seeds or starts.
        interval: of the mean difference; None where all agree, since what they would vary by is unknown.
        p_value: two-sided, of no difference.
    """

    value: float
    number: int
    interval: Interval | None
    p_value: float
