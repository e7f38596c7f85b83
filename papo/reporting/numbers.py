"""Numbers with what is unsure about them, as text; tables and sentences write them so."""

import math
from collections.abc import Callable, Iterable, Mapping

from papo.statistics import Interval

Shown = Interval | Mapping[str, float]
"""An interval, or what a JSON file holds of one."""


def interval_text(found: Shown, write: Callable[[float], str]) -> str:
    """Returns an estimate with its ends, "67.0 [60.2, 73.1]".

    Args:
        found: in the unit of the data.
        write: makes text of a number, the unit included.
    """
    known = found if isinstance(found, Interval) else Interval.from_dict(found)
    return f"{write(known.value)} [{write(known.low)}, {write(known.high)}]"


def finite(values: Iterable[float | int]) -> list[float | int]:
    """Returns the values that are numbers, in their order."""
    return [value for value in values if math.isfinite(value)]


def percent(found: Shown | float | None, *, signed: bool = False) -> str:
    """Returns a share in per cent, or a difference of shares in points; empty where there is none."""
    form = "+.1f" if signed else ".1f"

    def write(share: float) -> str:
        return f"{100 * share:{form}}"

    if found is None:
        return ""
    return write(found) if isinstance(found, float | int) else interval_text(found, write)


def no_interval(number: int | None = None) -> str:
    """Returns what stands where an interval would: one number, or several that all agree, have none."""
    return "[no interval]" if number is None else f"[n = {number}: no interval]"
