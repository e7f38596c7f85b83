"""What the recorded gradients of the terms say of a run: a verdict on each, for the check of a run and its page."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

PREFIX = "gradient/"
SURROGATE, PERCEPTION = "surrogate", "perception_kl"

LEADS = 1.0
"""A term whose gradient is larger than the surrogate's decides where the policy goes."""
CLAMPED = 0.5
"""Share of the tokens at a clamp."""
FEW = 0.9
"""Share of all pulls that the one per cent of the tokens with the largest have."""

FELL = 0.7
"""Of the vision tower's part of the perception KL's gradient, later against early; docs/term_gradients.md has the runs."""

TERM_RULE = (
    "Said of a term whose median over the later half of its measures is: a gradient larger than the surrogate's; more than "
    f"{100 * CLAMPED:.0f} % of the tokens at a clamp or cap; more than {100 * FEW:.0f} % of its pull from 1 % of the tokens; and of the "
    f"perception KL, a part of the vision tower below {FELL} of that in the first quarter. One measure is of few prompts and proves nothing. A term "
    "whose gradient was 0 in two measures or more, and never another, does nothing."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TermGradient:
    """One term of a run.

    Attributes:
        name: of the term.
        measures: by name (norm, norm_vision, cosine, ...), a value per measured rollout, nan where it has none.
        verdict: what to make of it, in a line.
        is_sound: whether the verdict finds nothing.
    """

    name: str
    measures: Mapping[str, Sequence[float]]
    verdict: str
    is_sound: bool

    @property
    def does_nothing(self) -> bool:
        """Whether it had no gradient in any of at least two measures: a reference KL has none before the first update."""
        norms = [norm for norm in self.measures.get("norm", ()) if not math.isnan(norm)]
        return len(norms) > 1 and not any(norms)

    def summary(self, measure: str) -> tuple[float, float, float]:
        """First, median and last value that is a number; nan where there is none."""
        return first_median_last(self.measures[measure])


def first_median_last(values: Sequence[float]) -> tuple[float, float, float]:
    """Of the values that are numbers; nan where none is."""
    numbers = [value for value in values if not math.isnan(value)]
    return (numbers[0], median(numbers), numbers[-1]) if numbers else (math.nan,) * 3


def judge_terms(curves: Mapping[str, Sequence[float]]) -> list[TermGradient]:
    """Returns the terms of a run, in the order of its columns; none where nothing was measured.

    Args:
        curves: column of metrics.csv -> a value per rollout.
    """
    columns: dict[str, dict[str, Sequence[float]]] = {}
    for column, values in curves.items():
        if column.startswith(PREFIX) and column.count("/") > 1 and not all(map(math.isnan, values)):
            name, measure = column.removeprefix(PREFIX).rsplit("/", 1)
            columns.setdefault(name, {})[measure] = values
    surrogate = columns.get(SURROGATE, {}).get("norm", ())
    return [
        _judged(name, measures, surrogate)
        for name, measures in columns.items()
        if "norm" in measures
    ]


def _judged(
    name: str, measures: Mapping[str, Sequence[float]], surrogate: Sequence[float]
) -> TermGradient:
    term = TermGradient(
        name=name, measures=measures, verdict="nothing speaks against it", is_sound=True
    )
    if term.does_nothing:
        found = ["no gradient in any measure: it has a weight and does nothing"]
    else:
        found = _findings(name, measures, surrogate)
    return replace(term, verdict="; ".join(found), is_sound=False) if found else term


def _findings(
    name: str, measures: Mapping[str, Sequence[float]], surrogate: Sequence[float]
) -> list[str]:
    findings = []
    ratios = [
        own / other
        for own, other in zip(measures["norm"], surrogate, strict=False)
        if own == own and other > 0
    ]
    if name != SURROGATE and (times := _later(ratios)) > LEADS:
        findings.append(f"it leads: its gradient is {times:.3g} times the surrogate's")
    for measure, limit, says in (
        ("clamped", CLAMPED, "of the tokens are at a clamp or cap, where it teaches nothing"),
        ("top_share", FEW, "of its pull comes from 1 % of the tokens"),
    ):
        if (share := _later(measures.get(measure, ()))) > limit:
            findings.append(f"{100 * share:.0f} % {says}")
    if name == PERCEPTION and "norm_vision" in measures:
        parts = [
            part / own
            for part, own in zip(measures["norm_vision"], measures["norm"], strict=True)
            if own > 0
        ]
        early = median(parts[: max(1, len(parts) // 4)]) if parts else math.nan
        if (later := _later(parts)) < FELL * early:
            findings.append(
                f"it leaves the vision tower, whose part of its norm fell from {early:.2g} to {later:.2g}"
            )
    return findings


def _later(values: Sequence[float]) -> float:
    """The median of the later half of the values that are numbers; nan without any."""
    numbers = [value for value in values if not math.isnan(value)]
    return median(numbers[len(numbers) // 2 :]) if numbers else math.nan
