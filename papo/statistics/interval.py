"""An estimate with what is unsure about it."""

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


@dataclass(frozen=True, slots=True)
class Difference:
    """A paired difference, second minus first.

    Attributes:
        interval: of the mean difference.
        p_value: two-sided, of no difference.
    """

    interval: Interval
    p_value: float
