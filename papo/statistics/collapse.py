"""Whether a run collapsed: one rule on its recorded curves, for the run page, the sweep reports and the docs.

A policy can raise the perception KL without looking, by writing what the masked view would never write
(arXiv:2507.06448v5). The KL runs away, responses lose their form, and accuracy falls or stands still. One
of these alone is no collapse: a policy that learns to look raises the KL, accuracy scatters below the best
of many tenths, and a longer answer may be cut. Two at once are.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

ACCURACY_COLUMNS = ("resample/drawn_correct", "reward/accuracy")
"""Where the accuracy of a rollout stands: dynamic sampling would bias the second, which it drops from."""

PERCEPTION_KL_COLUMN = "loss/perception_kl"

FORM_COLUMNS = ("reward/error_format", "reward/format", "response/finished")
"""Where the form of a rollout's responses stands, the first that is there."""

FALL, SOUND_FALL = 3.0, 2.9
"""Standard errors below the best tenth: the limit, and what sound runs of the lab reach, as the best is picked of many."""
PERCEPTION_KL, SOUND_PERCEPTION_KL = 1.0, 1.3
"""Nats per token: the picture makes every token e times likelier. One of 51 sound runs of the lab passes the limit."""
LOST_FORM, SOUND_LOST_FORM = 0.1, 0.04
"""Share of responses: the limit, and the most that sound runs of the lab lose (docs/results/lab_collapse.md)."""

COLLAPSE_RULE = (
    "A run has collapsed where two of three hold over the same tenth of its rollouts: its accuracy lies "
    f"more than {FALL:.0f} standard errors below its best tenth so far; its perception KL is above "
    f"{PERCEPTION_KL:.0f} nat per token; {100 * LOST_FORM:.0f} points more of its responses than in its "
    "best tenth so far are badly formatted."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Collapse:
    """The verdict on a run.

    Attributes:
        rollout: the first one, counted from 1, at whose end the rule holds; None for a sound run.
        signs: what holds there, of "accuracy", "perception KL" and "format errors".
        fall: how far accuracy fell below its best tenth so far, in standard errors; the most of any tenth.
        perception_kl: nats per token, the largest of any tenth; None where the run has none.
        lost_form: share of badly formatted responses above that of the best tenth so far, the most.
    """

    rollout: int | None
    signs: tuple[str, ...]
    fall: float
    perception_kl: float | None
    lost_form: float

    def __bool__(self) -> bool:
        return self.rollout is not None


def judge_collapse(curves: Mapping[str, Sequence[float]]) -> Collapse:
    """Returns whether, when and by which signs a run collapsed (`COLLAPSE_RULE`).

    The standard error is that of a difference of two tenths, from the scatter of successive rollouts,
    since the curve itself is meant to move (von Neumann 1941, Annals of Mathematical Statistics 12).
    Values that are not numbers are no evidence.

    Args:
        curves: column of metrics.csv -> a value per rollout: `ACCURACY_COLUMNS`, and what there is of
            `PERCEPTION_KL_COLUMN` and `FORM_COLUMNS`. Where nothing grades the form, a response that
            was cut at its limit counts as badly formatted.
    """
    accuracy = next((curves[name] for name in ACCURACY_COLUMNS if name in curves), ())
    size = max(1, max(map(len, curves.values()), default=0) // 10)
    error = _error(accuracy, size) or math.inf
    falls = [fall / error for fall in _below_best(accuracy, size)]
    perception = _tenths(curves.get(PERCEPTION_KL_COLUMN, ()), size)
    lost = _below_best([-value for value in badly_formatted(curves)], size)
    signs = {
        "accuracy": (falls, FALL),
        "perception KL": (perception, PERCEPTION_KL),
        "format errors": (lost, LOST_FORM),
    }
    held = [
        tuple(
            name
            for name, (values, limit) in signs.items()
            if values[place:] and values[place] > limit
        )
        for place in range(max(map(len, (falls, perception, lost))))
    ]
    first = next((place for place, found in enumerate(held) if len(found) > 1), None)
    return Collapse(
        rollout=None if first is None else first + size,
        signs=() if first is None else held[first],
        fall=_largest(falls),
        perception_kl=_largest(perception) if perception else None,
        lost_form=_largest(lost),
    )


def judged_columns(curves: Mapping[str, Sequence[float]]) -> tuple[str, ...]:
    """Returns the columns that `judge_collapse` reads of these."""
    sources = (ACCURACY_COLUMNS, (PERCEPTION_KL_COLUMN,), FORM_COLUMNS)
    return tuple(
        found for names in sources for found in [name for name in names if name in curves][:1]
    )


def badly_formatted(curves: Mapping[str, Sequence[float]]) -> Sequence[float]:
    """Returns the share of badly formatted responses of each rollout; empty where nothing says."""
    errors, *kept = FORM_COLUMNS
    if errors in curves:
        return curves[errors]
    return [1.0 - value for value in next((curves[name] for name in kept if name in curves), ())]


def _tenths(values: Sequence[float], size: int) -> list[float]:
    """Means over a tenth of the rollouts, moved along one by one."""
    return [
        math.fsum(values[start : start + size]) / size for start in range(len(values) - size + 1)
    ]


def _below_best(values: Sequence[float], size: int) -> list[float]:
    """How far each tenth lies below the best one so far; nan where that is unknown."""
    best, below = -math.inf, []
    for mean in _tenths(values, size):
        best = max(best, mean)  # which an unknown mean leaves as it is
        below.append(best - mean)
    return below


def _error(accuracy: Sequence[float], size: int) -> float:
    steps = [b - a for a, b in pairwise(accuracy) if math.isfinite(b - a)]
    scatter = math.sqrt(math.fsum(step * step for step in steps) / (2 * max(1, len(steps))))
    return scatter * math.sqrt(2 / size)


def _largest(values: Sequence[float]) -> float:
    return max((value for value in values if not math.isnan(value)), default=0.0)
