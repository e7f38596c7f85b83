"""An error analysis: labellers at work on a sample, and everything that is counted, as plain values."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from papo.analysis.errors.labellers.geometry.labels import GeometryLabels
from papo.analysis.errors.misread_facts import misread_facts
from papo.analysis.errors.misreadings import RunReadings, summarize_readings
from papo.analysis.errors.sampling import Sample
from papo.analysis.errors.shares import (
    Agreement,
    Labels,
    agreement,
    category_shares,
    corrected_share,
)
from papo.analysis.errors.tables import LOWER_BOUND, validation
from papo.analysis.errors.taxonomy import (
    ERROR_CATEGORIES,
    Case,
    ErrorCategory,
    ErrorLabel,
    Exclusion,
    Labeller,
)
from papo.analysis.errors.transitions import Transitions, compute_transitions
from papo.statistics import Interval, relative_reduction, wilson_interval
from papo.storage.published import published_results

_SHOWN_SERVER_WORDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledSample:
    """A sample with all that was said of it.

    Attributes:
        sample: the cases.
        labels: per labeller, its labels by item.
        exclusions: cases that a labeller gave no label.
    """

    sample: Sample
    labels: Mapping[str, Labels]
    exclusions: tuple[Exclusion, ...]


def label_sample(
    sample: Sample, labellers: Sequence[Labeller], human_labels: Sequence[ErrorLabel]
) -> LabelledSample:
    """Lets every labeller label the cases it can, and adds what people said."""
    labels: dict[str, dict[str, ErrorLabel]] = {}
    exclusions: list[Exclusion] = []
    for label in human_labels:
        labels.setdefault(label.labeller, {})[label.item] = label
    for labeller in labellers:
        cases: list[Case] = [case for case in sample.cases if labeller.can_label(case)]
        if cases:
            verdicts = labeller.label(cases)
            exclusions.extend(one for one in verdicts if isinstance(one, Exclusion))
            # Also one without any label: its exclusions are counted under its name.
            labels[labeller.name] = {
                one.item: one for one in verdicts if isinstance(one, ErrorLabel)
            }
    return LabelledSample(sample=sample, labels=labels, exclusions=tuple(exclusions))


def summarize(
    labelled: LabelledSample,
    *,
    readings: Sequence[RunReadings] = (),
    seed: int,
    min_validated: int,
) -> dict[str, Any]:
    """Returns all counts, shares, intervals and tests, as what summary.json holds.

    Args:
        labelled: the labels.
        readings: of the runs that were shown drawn scenes.
        seed: of the resampling.
        min_validated: a judge is validated by so many cases whose true label is known.
    """
    sample = labelled.sample
    true = true_labels(labelled)
    transitions = [
        found
        for name, labels in labelled.labels.items()
        for after in sample.runs[1:]
        if (found := compute_transitions(sample, labels, labeller=name, after=after, seed=seed))
    ]
    labellers = {
        name: _labeller_summary(name, labelled, true, seed=seed, min_validated=min_validated)
        for name in labelled.labels
    }
    return {
        "analysis": sample.analysis,
        "runs": list(sample.runs),
        "slots_drawn": len(sample.units),
        "wrong": {run: sum(case.run == run for case in sample.cases) for run in sample.runs},
        "benchmarks": dict(Counter(unit.benchmark for unit in sample.units)),
        "right_although_misread": dict(sample.right_although_misread),
        "labellers": labellers,
        "headline": _headline(labelled, labellers),
        "agreement": [_agreement(one) for one in _agreements(labelled, seed=seed)],
        "transitions": [_transitions(one) for one in transitions],
        "readings": [summarize_readings(found, seed=seed) for found in readings],
        "misread_facts": misread_facts(
            list(labelled.labels.get(GeometryLabels.name, {}).values()), sample.runs
        ),
        "published": published(seed=seed),
    }


def true_labels(labelled: LabelledSample) -> dict[str, ErrorLabel]:
    """Labels that others are measured against: the lab's, else of people the first one's who said it."""
    found: dict[str, ErrorLabel] = {}
    for name, labels in sorted(labelled.labels.items(), key=lambda entry: entry[0] != "lab"):
        if name == "lab" or name.startswith("human:"):
            for item, label in labels.items():
                found.setdefault(item, label)
    return found


def published(*, seed: int) -> dict[str, Any]:
    """The paper's error analysis with the intervals its sample size implies.

    The paper gives shares and no counts beyond 200 cases: 67 % are 134, and 30.5 % fewer are 93.
    """
    numbers = published_results()["error_analysis"]
    cases = numbers["cases"]
    before = round(cases * numbers["perception_share"])
    after = round(before * (1 - numbers["perception_reduction_with_papo"]))

    def ones(count: int) -> list[float]:
        return [1.0] * count + [0.0] * (cases - count)

    reduction = relative_reduction(ones(before), ones(after), paired=False, seed=seed)
    return {
        "source": "arXiv:2507.06448v5, section 2.2: Qwen2.5-VL-3B with GRPO, labelled by hand",
        "cases": cases,
        "perception": _interval(wilson_interval(before, cases)),
        "perception_reduction_with_papo": {
            **_interval(reduction),
            "value": numbers["perception_reduction_with_papo"],
        },
    }


def _labeller_summary(
    name: str,
    labelled: LabelledSample,
    true: Mapping[str, ErrorLabel],
    *,
    seed: int,
    min_validated: int,
) -> dict[str, Any]:
    labels = labelled.labels[name]
    is_judge = name.startswith("judge:")
    checks = _checks(labels, true, min_validated=min_validated) if is_judge else None
    runs = {}
    for run in labelled.sample.runs:
        of_run = {item: label for item, label in labels.items() if label.run == run}
        by_benchmark: dict[str, dict[str, ErrorLabel]] = {}
        for item, label in of_run.items():
            by_benchmark.setdefault(label.benchmark, {})[item] = label
        runs[run] = {
            "labelled": len(of_run),
            "shares": _shares([label.category for label in of_run.values()], seed=seed),
            "benchmarks": {
                benchmark: _shares([label.category for label in found.values()], seed=seed)
                for benchmark, found in sorted(by_benchmark.items())
            },
            "corrected": _corrected(of_run, true, seed=seed)
            if checks and checks["validated"]
            else None,
            "benchmarks_corrected": {
                benchmark: _corrected(found, true, seed=seed)
                if checks and checks["checked_per_benchmark"][benchmark] >= min_validated
                else None
                for benchmark, found in sorted(by_benchmark.items())
            },
        }
    return {
        "kind": "judge" if is_judge else name.split(":")[0],
        "runs": runs,
        "excluded": dict(
            Counter(one.reason for one in labelled.exclusions if one.labeller == name)
        ),
        "server_said": _server_said(name, labelled),
        "seconds": sum(label.seconds or 0.0 for label in labels.values()) or None,
        **(checks or {}),
    }


def _checks(
    labels: Labels, true: Mapping[str, ErrorLabel], *, min_validated: int
) -> dict[str, Any]:
    """How many of a judge's labels were compared with known ones, and whether that is enough.

    It is where every benchmark was checked: known labels of drawn scenes alone say nothing of how the
    judge errs on other pictures.
    """
    judged = Counter(label.benchmark for label in labels.values())
    checked = Counter(label.benchmark for item, label in labels.items() if item in true)
    unchecked = sorted(benchmark for benchmark in judged if not checked[benchmark])
    return {
        "checked": checked.total(),
        "checked_per_benchmark": {benchmark: checked[benchmark] for benchmark in sorted(judged)},
        "unchecked": unchecked,
        "needed": min_validated,
        "validated": checked.total() >= min_validated and not unchecked,
    }


def _corrected(labels: Labels, true: Labels, *, seed: int) -> dict[str, Any] | None:
    if not labels:
        return None
    return {
        str(category): None if found is None else _interval(found)
        for category in ERROR_CATEGORIES
        for found in [corrected_share(labels, true, category, seed=seed)]
    }


def _server_said(name: str, labelled: LabelledSample) -> list[str]:
    """The commonest words of a server that gave no reply; exclusions.jsonl has all."""
    said = Counter(
        f"{one.reason}: {one.detail}"
        for one in labelled.exclusions
        if one.labeller == name and one.detail
    )
    return [words for words, _ in said.most_common(_SHOWN_SERVER_WORDS)]


def _headline(labelled: LabelledSample, labellers: Mapping[str, Any]) -> dict[str, Any]:
    """Whose shares stand at the top: exact ones, then people's, then a validated judge's; or none's."""
    num_cases = len(labelled.sample.cases)
    excluded = Counter(one.labeller for one in labelled.exclusions)
    lab = labelled.labels.get("lab", {})
    if lab and len(lab) + excluded["lab"] == num_cases:
        return {"labeller": "lab", "basis": "exact: the drawn scene is known"}
    people = [name for name in labellers if name.startswith("human:")]
    if people:
        count = len(labelled.labels[people[0]])
        return {"labeller": people[0], "basis": f"a person labelled {count} of {num_cases} cases"}
    judges = [name for name, one in labellers.items() if one["kind"] == "judge"]
    for name in judges:
        if labellers[name]["validated"]:
            basis = f"a judge, corrected by {labellers[name]['checked']} cases of known label"
            return {"labeller": name, "basis": basis}
    if judges:
        one = labellers[judges[0]]
        basis = (
            f"{judges[0]} is not validated. {validation(one)} Its shares are not a result; label cases "
            "with label_page.html."
        )
        return {"labeller": None, "basis": basis}
    return {"labeller": None, "basis": LOWER_BOUND if "geometry" in labellers else "no labels yet"}


def _agreements(labelled: LabelledSample, *, seed: int) -> list[Agreement]:
    return [
        found
        for one, other in combinations(labelled.labels, 2)
        if (
            found := agreement(
                labelled.labels[one], labelled.labels[other], names=(one, other), seed=seed
            )
        ).items
    ]


def _shares(categories: Sequence[ErrorCategory], *, seed: int) -> dict[str, Any]:
    return {
        str(category): {
            "count": share.count,
            "share": share.wilson.value,
            "wilson": [share.wilson.low, share.wilson.high],
            "bootstrap": [share.bootstrap.low, share.bootstrap.high],
        }
        for category, share in category_shares(categories, seed=seed).items()
    }


def _agreement(one: Agreement) -> dict[str, Any]:
    return {
        "first": one.first,
        "second": one.second,
        "items": one.items,
        "agreed": one.agreed,
        "kappa": None if one.kappa is None else _interval(one.kappa),
        "table": [
            {"first": str(first), "second": str(second), "cases": count}
            for (first, second), count in sorted(one.table.items())
        ],
    }


def _transitions(one: Transitions) -> dict[str, Any]:
    return {
        "labeller": one.labeller,
        "before": one.before,
        "after": one.after,
        "slots": one.units,
        "left_out": one.left_out,
        "counts": [
            {"before": str(before), "after": str(after), "slots": count}
            for (before, after), count in sorted(one.counts.items())
        ],
        **{
            name: {
                "before": found.before,
                "after": found.after,
                "only_before": found.only_before,
                "only_after": found.only_after,
                "mcnemar_p": found.p_value,
            }
            for name, found in (("correct", one.correct), ("perception", one.perception))
        },
        "perception_reduction": None if one.reduction is None else _interval(one.reduction),
        "bowker_p": one.symmetry_p,
    }


def _interval(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}
