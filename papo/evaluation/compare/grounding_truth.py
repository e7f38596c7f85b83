"""Which numbers of an audit follow real misreading: audits of lab policies against what their graders know.

The truth of a policy is what its training run found at its end, on 250 problems a set with draws of its own: of the
responses that follow the grammar, the share with a wrong reading, mean of the two sets; and the accuracy that it loses
from the training prior to numbers that defy guesses.
"""

import csv
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from papo.evaluation.grounding_measures import MEASURES
from papo.statistics import Interval, area_under_curve, pearson, spearman, t_interval
from papo.storage.files import read_object
from papo.storage.responses import read_responses

MISREAD = ("perception", "correct_but_misread")
MOST_FORMAT = 0.2
"""Policies that break the grammar more often have no truth: what they read cannot be graded."""
FEWEST = 10
"""Responses of either kind that an area under the curve of one policy takes."""

REMEDY = "Audit it anew (evaluate.py audit=grounding)."


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedPolicy:
    """One audit of a lab policy.

    Attributes:
        checkpoint: whose.
        misread: true share of misread responses.
        prior_drop: accuracy lost by numbers that defy guesses.
        format: share of responses outside the grammar, the larger of the two sets.
        measures: mean over the two sets of each number of the audit that both have.
        areas: by a response's own numbers: the chance that one read right has a larger value than one misread.
    """

    checkpoint: str
    misread: float
    prior_drop: float
    format: float
    measures: Mapping[str, float]
    areas: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracking:
    """How one number follows the truth over policies; None where too few have it, or all have the same.

    Attributes:
        name: of the number.
        num_policies: that have it.
        with_misread: rank correlation with the true misread share.
        linear: Pearson's.
        with_prior_drop: rank correlation with the accuracy lost by numbers that defy guesses.
    """

    name: str
    num_policies: int
    with_misread: Interval | None
    linear: Interval | None
    with_prior_drop: Interval | None


def read_audited(folder: Path) -> AuditedPolicy:
    """Reads one audit, and the end of the run whose policy it was.

    Raises:
        ValueError, OSError: it is no audit of a finished lab run's last checkpoint.
    """
    run = read_object(folder / "run.json", fields={"checkpoint": dict}, remedy=REMEDY)
    location = Path(run["checkpoint"]["location"])
    result = location.parent.parent / "result.json"
    if not result.is_file():
        raise ValueError(
            f"the truth of {folder} is at the end of the training run whose checkpoint it evaluated; there is no {result}"
        )
    ended = read_object(result, fields={"evaluation": dict}, remedy="Train again.")
    sets = [*ended["evaluation"]["after"].values()]
    shares = [{name: one["value"] for name, one in found["shares"].items()} for found in sets]
    accuracies = [found["accuracy"]["value"] for found in sets]
    misread = [sum(one[name] for name in MISREAD) / max(1e-9, 1 - one["format"]) for one in shares]
    with (folder / "grounding.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return AuditedPolicy(
        checkpoint=str(location),
        misread=statistics.fmean(misread),
        prior_drop=accuracies[0] - accuracies[1],
        format=max(one["format"] for one in shares),
        measures={
            one.name: statistics.fmean(float(row[one.name]) for row in rows)
            for one in MEASURES
            if all(row[one.name] for row in rows)
        },
        areas=dict(_areas(folder)),
    )


def _areas(folder: Path) -> Iterator[tuple[str, float]]:
    """Per number of a response that was scored."""
    misread = {
        (one.benchmark, one.problem_id, one.response_index): one.verdicts["lab"]
        for one in read_responses(folder)
        if one.view == "image"
    }
    own: list[tuple[bool, dict[str, float]]] = []
    with (folder / "grounding.jsonl").open(encoding="utf-8", newline="\n") as lines:
        for values in map(json.loads, lines):
            verdict = misread[values["benchmark"], values["problem_id"], values["response_index"]]
            if values["kind"] == "own" and verdict != "format":
                own.append((verdict in MISREAD, _numbers(values)))
    for name in dict.fromkeys(name for _, numbers in own for name in numbers):
        right = [numbers[name] for is_misread, numbers in own if not is_misread and name in numbers]
        wrong = [numbers[name] for is_misread, numbers in own if is_misread and name in numbers]
        if min(len(right), len(wrong)) >= FEWEST:
            yield name, area_under_curve(right, wrong)


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of one response, nats; its confidence is its log-probability with the picture."""
    drops: Mapping[str, float] = values["drops"]
    found = {"confidence": float(values["logprob"])}
    found |= {
        f"lost by: {view}": drops[view]
        for view in ("blank", "removed", "swapped", "evidence")
        if view in drops
    }
    controls = [drop for view, drop in drops.items() if view.startswith("control_")]
    if controls:
        found["evidence margin"] = drops["evidence"] - statistics.fmean(controls)
    if values["kl"]:
        found["perception KL"] = statistics.fmean(values["kl"])
    return found


def track(policies: Sequence[AuditedPolicy], *, seed: int) -> list[Tracking]:
    """Returns how each number of the audit follows the truth over the policies that have it."""
    found = []
    for measure in MEASURES:
        known = [one for one in policies if measure.name in one.measures]
        values = [one.measures[measure.name] for one in known]
        misread = [one.misread for one in known]
        drops = [one.prior_drop for one in known]
        found.append(
            Tracking(
                name=measure.name,
                num_policies=len(known),
                with_misread=spearman(values, misread, seed=seed),
                linear=pearson(values, misread, seed=seed),
                with_prior_drop=spearman(values, drops, seed=seed),
            )
        )
    return found


def areas(policies: Sequence[AuditedPolicy]) -> dict[str, tuple[int, float, Interval | None]]:
    """Returns of each number of a response: policies, the mean area under the curve, its t interval over policies."""
    by_name: dict[str, list[float]] = {}
    for one in policies:
        for name, area in one.areas.items():
            by_name.setdefault(name, []).append(area)
    return {
        name: (len(found), statistics.fmean(found), t_interval(found, bounds=(0.0, 1.0)))
        for name, found in by_name.items()
    }
