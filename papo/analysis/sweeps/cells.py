"""The cells of a sweep's tables: means, differences and shares with their intervals, and published values, as text."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from papo.analysis.sweeps.comparison import ArmScore, Signs, SweepSummary, Tested
from papo.analysis.sweeps.measures import unit_of, value_text
from papo.reporting.numbers import interval_text, no_interval, percent
from papo.statistics import Interval, MeanDifference
from papo.storage.published import published_results
from papo.storage.sweep_runs import PUBLISHED_AVERAGES


def published_rows(summary: SweepSummary, arm: str) -> dict[str, Mapping[str, float | None]]:
    """The published averages of an arm: row -> general, vision and overall in per cent."""
    return {
        " ".join(path.split("/")[1:]): _published_row(path)
        for path in summary.sweep.published.get(arm, ())
    }


def published_cell(summary: SweepSummary, arm: str) -> str:
    """The published averages of an arm as text; empty where there are none."""
    rows = published_rows(summary, arm)
    return "; ".join(
        f"{name}: "
        + " / ".join("–" if row[a] is None else f"{row[a]:.2f}" for a in PUBLISHED_AVERAGES)
        for name, row in rows.items()
    )


def _published_row(path: str) -> dict[str, float | None]:
    node: Any = published_results()
    for part in path.split("/"):
        keys = {str(key): key for key in node} if isinstance(node, Mapping) else {}
        if part not in keys:
            raise ValueError(
                f"papo/storage/published.yaml has no row {path!r}; check sweep.published"
            )
        node = node[keys[part]]
    if isinstance(node, Mapping):
        return {name: node[name] for name in PUBLISHED_AVERAGES}
    return dict(zip(PUBLISHED_AVERAGES, node, strict=True))


def collapsed_cell(signs: Signs) -> str:
    """Returns how many runs of an arm collapsed, with the interval of their share in per cent."""
    return count_cell(len(signs.collapsed), signs.num_runs, signs.collapsed_share)


def count_cell(count: int, total: int, share: Interval) -> str:
    """Returns "3 of 8 [14, 69]"."""
    return f"{count} of {total} [{100 * share.low:.0f}, {100 * share.high:.0f}]"


def interval_ends(interval: Interval | None) -> tuple[float | str, float | str]:
    """Returns low and high as cells of a CSV file, empty where there is no interval."""
    return ("", "") if interval is None else (interval.low, interval.high)


def score_cell(measure: str, score: ArmScore | None) -> str:
    """Returns a mean with its interval, in the unit of its measure; empty where there is none."""
    if score is None:
        return ""
    return mean_cell(measure, score.mean, score.interval, number=len(score.values))


def mean_cell(measure: str, mean: float, interval: Interval | None, *, number: int) -> str:
    """Returns a mean of so many numbers in the unit of its measure, with its interval.

    How many responses were drawn is known where all runs drew as many; of any other measure it is said
    that there is no interval.
    """
    text = value_text(measure, mean)
    if interval is None:
        return text if unit_of(measure) == "responses" else f"{text} {no_interval(number)}"
    return interval_text(interval, partial(value_text, measure))


def difference_cell(difference: MeanDifference) -> str:
    """Returns a difference of shares in points, with its interval."""
    return points(difference.value, difference.interval, number=difference.number)


def starred_cell(difference: MeanDifference, q_value: float) -> str:
    """Returns the same with a star where q < 0.05."""
    return difference_cell(difference) + "*" * (q_value < 0.05)


def points(value: float, interval: Interval | None, *, number: int) -> str:
    """Returns a difference of shares in points, with the interval of so many differences."""
    if interval is None:
        return f"{percent(value, signed=True)} {no_interval(number)}"
    return percent(interval, signed=True)


def probability(value: float) -> str:
    """Returns a p- or q-value to three digits."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def tested_cells(tested: Tested) -> tuple[str, str, str, str]:
    """Returns the difference in points, p, q, and the smallest difference found; empty where all agree."""
    return (
        difference_cell(tested.difference),
        probability(tested.difference.p_value),
        probability(tested.q_value),
        percent(tested.detectable),
    )


def tested_values(tested: Tested | None) -> tuple[float | str, ...]:
    """Returns both ends, p, q and the smallest difference found as cells of a CSV file."""
    if tested is None:
        return ("",) * 5
    found = tested.difference
    detectable = "" if tested.detectable is None else tested.detectable
    return (*interval_ends(found.interval), found.p_value, tested.q_value, detectable)
