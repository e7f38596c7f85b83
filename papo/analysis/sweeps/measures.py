"""The measures of a sweep's runs: their names, units and order, and accuracy at equal sampling cost."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from papo.storage.sweep_runs import PUBLISHED_AVERAGES, Sweep, SweepRun

_TITLES = {
    "accuracy_curve": "accuracy, mean over all rollouts",
    "accuracy_end": "accuracy, last tenth of the rollouts",
    "accuracy_curve_equal_cost": "accuracy, mean over the first N drawn responses",
    "accuracy_end_equal_cost": "accuracy, last tenth of the first N drawn responses",
    "responses_drawn": "responses drawn",
    "perception_kl_end": "perception KL, last tenth of the rollouts",
    "perception_kl_max": "largest perception KL of a rollout",
    "format_errors_end": "format errors, last tenth of the rollouts",
}
_UNITS = {"responses_drawn": "responses", "perception_kl_end": "nats", "perception_kl_max": "nats"}

COST_AND_STABILITY = (
    "responses_drawn",
    "perception_kl_end",
    "perception_kl_max",
    "format_errors_end",
)
"""What a run cost and how sound its policy was; the other measures are results."""


DIFFERENCE_OF_SHARES = (-1.0, 1.0)
"""What arms that are compared can differ by: shares alone are compared."""


def measure_name(measure: str) -> str:
    """Returns what a measure is called in a heading."""
    return _TITLES.get(measure, measure)


def unit_of(measure: str) -> str:
    """Returns "share" (between 0 and 1), "responses" or "nats"."""
    return _UNITS.get(measure, "share")


def bounds_of(measure: str) -> tuple[float, float]:
    """Returns what values of the measure can be; intervals go no further."""
    return (0.0, 1.0) if unit_of(measure) == "share" else (0.0, math.inf)


def value_text(measure: str, value: float, *, decimals: int = 1) -> str:
    """Returns a value as tables show it: shares in per cent, counts whole, nats to three digits."""
    unit = unit_of(measure)
    if unit == "share":
        return f"{100 * value:.{decimals}f}"
    return f"{value:.0f}" if unit == "responses" else f"{value:.3g}"


def in_order(measures: Iterable[str]) -> tuple[str, ...]:
    """Returns measures as tables show them: the paper's averages, results, cost and stability."""
    found = dict.fromkeys(measures)
    first = [*PUBLISHED_AVERAGES, *(name for name in _TITLES if name not in COST_AND_STABILITY)]
    rest = [name for name in found if name not in first and name not in COST_AND_STABILITY]
    return tuple(name for name in (*first, *rest, *COST_AND_STABILITY) if name in found)


def equal_costs(sweep: Sweep) -> dict[int, float]:
    """Returns N of each seed: the fewest responses that an arm drew with it.

    Empty where all arms drew the same number, or where a run does not say how many it drew.
    """
    totals: dict[int, list[float]] = {}
    for run in sweep.runs:
        if not run.drawn:
            return {}
        totals.setdefault(run.seed, []).append(run.drawn[-1])
    if all(len(set(each)) == 1 for each in totals.values()):
        return {}
    return {seed: min(each) for seed, each in totals.items()}


def at_equal_cost(sweep: Sweep) -> Sweep:
    """Returns the sweep with two more scores a run, where its arms drew different numbers of responses.

    "accuracy_curve_equal_cost" is the mean accuracy of the first N responses that a run drew, N from
    `equal_costs`; "accuracy_end_equal_cost" that of the last tenth of these.
    """
    costs = equal_costs(sweep)
    if not costs:
        return sweep
    return replace(
        sweep,
        runs=tuple(
            replace(run, scores={**run.scores, **_scores_of_first(run, costs[run.seed])})
            for run in sweep.runs
        ),
    )


def _scores_of_first(run: SweepRun, number: float) -> Mapping[str, float]:
    curve = (run.accuracies, run.drawn)
    return {
        "accuracy_curve_equal_cost": _mean_between(*curve, 0.0, number),
        "accuracy_end_equal_cost": _mean_between(*curve, 0.9 * number, number),
    }


def _mean_between(
    accuracies: Sequence[float], drawn: Sequence[float], first: float, last: float
) -> float:
    """Mean accuracy of the responses between two places; those of one rollout count alike."""
    total, begin = 0.0, 0.0
    for accuracy, end in zip(accuracies, drawn, strict=True):
        total += accuracy * max(0.0, min(end, last) - max(begin, first))
        begin = end
    return total / (last - first)
