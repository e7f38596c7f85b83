"""An error analysis: labellers at work on a sample, and everything that is counted."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from papo.analysis.errors.labellers.geometry.labels import GeometryLabels
from papo.analysis.errors.misread_facts import misread_facts
from papo.analysis.errors.misreadings import RunReadings, summarize_readings
from papo.analysis.errors.sampling import Sample
from papo.analysis.errors.shares import (
    Agreement,
    Labels,
    Share,
    agreement,
    category_shares,
    corrected_share,
)
from papo.analysis.errors.summary import (
    Corrected,
    ErrorSummary,
    Headline,
    JudgeFacts,
    LabellerSummary,
    PublishedErrors,
    RunShares,
    Validation,
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
from papo.analysis.errors.transitions import compute_transitions
from papo.statistics import relative_reduction, wilson_interval
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
    judge: Sequence[JudgeFacts] = (),
    seed: int,
    min_validated: int,
) -> ErrorSummary:
    """Returns all counts, shares, intervals and tests.

    Args:
        labelled: the labels.
        readings: of the runs that were shown drawn scenes.
        judge: what judging took.
        seed: of the resampling.
        min_validated: a judge is validated by so many cases whose true label is known.
    """
    sample = labelled.sample
    true = true_labels(labelled)
    transitions = tuple(
        found
        for name, labels in labelled.labels.items()
        for after in sample.runs[1:]
        if (found := compute_transitions(sample, labels, labeller=name, after=after, seed=seed))
    )
    labellers = {
        name: _labeller_summary(name, labelled, true, seed=seed, min_validated=min_validated)
        for name in labelled.labels
    }
    return ErrorSummary(
        analysis=sample.analysis,
        runs=tuple(sample.runs),
        slots_drawn=len(sample.units),
        wrong={run: sum(case.run == run for case in sample.cases) for run in sample.runs},
        benchmarks=Counter(unit.benchmark for unit in sample.units),
        right_although_misread=sample.right_although_misread,
        labellers=labellers,
        headline=_headline(labelled, labellers),
        agreement=_agreements(labelled, seed=seed),
        transitions=transitions,
        readings=tuple(summarize_readings(found, seed=seed) for found in readings),
        misread_facts=misread_facts(
            list(labelled.labels.get(GeometryLabels.name, {}).values()), sample.runs
        ),
        published=published(seed=seed),
        judge=tuple(judge),
    )


def true_labels(labelled: LabelledSample) -> dict[str, ErrorLabel]:
    """Labels that others are measured against: the lab's, else of people the first one's who said it."""
    found: dict[str, ErrorLabel] = {}
    for name, labels in sorted(labelled.labels.items(), key=lambda entry: entry[0] != "lab"):
        if name == "lab" or name.startswith("human:"):
            for item, label in labels.items():
                found.setdefault(item, label)
    return found


def published(*, seed: int) -> PublishedErrors:
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
    return PublishedErrors(
        source="arXiv:2507.06448v5, section 2.2: Qwen2.5-VL-3B with GRPO, labelled by hand",
        cases=cases,
        perception=wilson_interval(before, cases),
        perception_reduction_with_papo=replace(
            reduction, value=numbers["perception_reduction_with_papo"]
        ),
    )


def _labeller_summary(
    name: str,
    labelled: LabelledSample,
    true: Mapping[str, ErrorLabel],
    *,
    seed: int,
    min_validated: int,
) -> LabellerSummary:
    labels = labelled.labels[name]
    is_judge = name.startswith("judge:")
    checks = _validation(labels, true, min_validated=min_validated) if is_judge else None
    return LabellerSummary(
        kind="judge" if is_judge else name.split(":")[0],
        runs={
            run: _run_shares(
                {item: label for item, label in labels.items() if label.run == run},
                true,
                checks,
                seed=seed,
            )
            for run in labelled.sample.runs
        },
        excluded=Counter(one.reason for one in labelled.exclusions if one.labeller == name),
        server_said=_server_said(name, labelled),
        seconds=sum(label.seconds or 0.0 for label in labels.values()) or None,
        validation=checks,
    )


def _run_shares(labels: Labels, true: Labels, checks: Validation | None, *, seed: int) -> RunShares:
    benchmarks: dict[str, dict[str, ErrorLabel]] = {}
    for item, label in labels.items():
        benchmarks.setdefault(label.benchmark, {})[item] = label
    by_benchmark = dict(sorted(benchmarks.items()))

    def shares(found: Labels) -> dict[ErrorCategory, Share]:
        return category_shares([label.category for label in found.values()], seed=seed)

    return RunShares(
        labelled=len(labels),
        shares=shares(labels),
        benchmarks={name: shares(found) for name, found in by_benchmark.items()},
        corrected=_corrected(labels, true, seed=seed) if checks and checks.validated else None,
        benchmarks_corrected={
            name: _corrected(found, true, seed=seed)
            if checks and checks.checked_per_benchmark[name] >= checks.needed
            else None
            for name, found in by_benchmark.items()
        },
    )


def _validation(
    labels: Labels, true: Mapping[str, ErrorLabel], *, min_validated: int
) -> Validation:
    """It is enough where every benchmark was checked: known labels of drawn scenes alone say nothing of how the
    judge errs on other pictures.
    """
    judged = Counter(label.benchmark for label in labels.values())
    checked = Counter(label.benchmark for item, label in labels.items() if item in true)
    unchecked = tuple(sorted(benchmark for benchmark in judged if not checked[benchmark]))
    return Validation(
        checked=checked.total(),
        checked_per_benchmark={benchmark: checked[benchmark] for benchmark in sorted(judged)},
        unchecked=unchecked,
        needed=min_validated,
        validated=checked.total() >= min_validated and not unchecked,
    )


def _corrected(labels: Labels, true: Labels, *, seed: int) -> Corrected | None:
    if not labels:
        return None
    return {
        category: corrected_share(labels, true, category, seed=seed)
        for category in ERROR_CATEGORIES
    }


def _server_said(name: str, labelled: LabelledSample) -> tuple[str, ...]:
    """The commonest words of a server that gave no reply; exclusions.jsonl has all."""
    said = Counter(
        f"{one.reason}: {one.detail}"
        for one in labelled.exclusions
        if one.labeller == name and one.detail
    )
    return tuple(words for words, _ in said.most_common(_SHOWN_SERVER_WORDS))


def _headline(labelled: LabelledSample, labellers: Mapping[str, LabellerSummary]) -> Headline:
    """Whose shares stand at the top: exact ones, then people's, then a validated judge's; or none's."""
    num_cases = len(labelled.sample.cases)
    excluded = Counter(one.labeller for one in labelled.exclusions)
    lab = labelled.labels.get("lab", {})
    if lab and len(lab) + excluded["lab"] == num_cases:
        return Headline(labeller="lab", basis="exact: the drawn scene is known")
    people = [name for name in labellers if name.startswith("human:")]
    if people:
        count = len(labelled.labels[people[0]])
        basis = f"a person labelled {count} of {num_cases} cases"
        return Headline(labeller=people[0], basis=basis)
    judges = {name: one.validation for name, one in labellers.items() if one.validation}
    for name, checks in judges.items():
        if checks.validated:
            basis = f"a judge, corrected by {checks.checked} cases of known label"
            return Headline(labeller=name, basis=basis)
    for name, checks in judges.items():
        basis = (
            f"{name} is not validated. {validation(checks)} Its shares are not a result; label cases "
            "with label_page.html."
        )
        return Headline(labeller=None, basis=basis)
    return Headline(
        labeller=None, basis=LOWER_BOUND if "geometry" in labellers else "no labels yet"
    )


def _agreements(labelled: LabelledSample, *, seed: int) -> tuple[Agreement, ...]:
    return tuple(
        found
        for one, other in combinations(labelled.labels, 2)
        if (
            found := agreement(
                labelled.labels[one], labelled.labels[other], names=(one, other), seed=seed
            )
        ).items
    )
