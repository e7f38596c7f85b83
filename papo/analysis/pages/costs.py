"""What a training step costs in several runs: seconds by phase, beside the paper's Table 14."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from papo.reporting.markdown_text import markdown_table
from papo.reporting.numbers import finite, interval_text, no_interval
from papo.statistics import Interval, ratio_of_means, t_interval
from papo.storage.files import read_object
from papo.storage.provenance import flatten_settings
from papo.storage.published import published_results
from papo.storage.training_run import read_training_run

PHASES = ("rollout", "reward", "score", "update")
"""The columns of timings.csv whose sum is a step: one rollout and the updates made of it."""

_COMPUTED_ALIKE = (
    *("model", "data", "reward", "rollout", "training", "optimizer", "trainer"),
    "num_threads",
)
"""Groups and keys of the configuration that a comparison of methods leaves as they are."""

_FREE = ("training.num_rollouts",)
"""Keys among them that change how many steps there are, not what one costs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCost:
    """What the steps of one run took.

    Attributes:
        name: the folder as the user called it.
        seconds: of every counted step.
        phases: mean seconds by phase.
        response_tokens: mean tokens of a response; NaN where the run says nothing of it.
        settings: flat configuration, by key.
        versions: of Python and the packages.
    """

    name: str
    seconds: tuple[float, ...]
    phases: Mapping[str, float]
    response_tokens: float
    settings: Mapping[str, Any]
    versions: Mapping[str, Any]


def read_cost(folder: Path, *, skip: int) -> RunCost:
    """Reads what a run took, finished or not.

    Args:
        folder: of a run of train.py.
        skip: steps at the start that are left out: the first ones warm up caches and compilers.

    Raises:
        ValueError: it is no run, or has not more than `skip` timed steps.
    """
    run = read_training_run(folder, groups_of_each_kind=1)
    rows = list(zip(*(run.timings.get(phase, ()) for phase in PHASES), strict=False))[skip:]
    steps = [row for row in rows if all(map(math.isfinite, row))]
    if not steps:
        raise ValueError(
            f"{folder} has no timed step after the first {skip}; train further, or lower --skip"
        )
    lengths = finite(run.metrics.get("response/tokens_mean", ())[skip:])
    versions = run.facts.get("versions")
    return RunCost(
        name=str(folder),
        seconds=tuple(map(sum, steps)),
        phases={
            phase: sum(row[index] for row in steps) / len(steps)
            for index, phase in enumerate(PHASES)
        },
        response_tokens=sum(lengths) / len(lengths) if lengths else math.nan,
        settings=dict(flatten_settings(_config(folder))),
        versions=versions if isinstance(versions, dict) else {},
    )


def step_seconds(cost: RunCost) -> Interval | None:
    """Returns the mean seconds per step with its 95 % t interval over steps; None of a single step."""
    return t_interval(cost.seconds, bounds=(0.0, math.inf))


def step_ratio(first: RunCost, second: RunCost) -> Interval | None:
    """Returns mean seconds of the second over the first (1.19 = 19 % more); None of a single step."""
    return ratio_of_means(first.seconds, second.seconds)


def cost_markdown(costs: Sequence[RunCost]) -> str:
    """Returns the table: a row per run, the first one being what the others are divided by."""
    first = costs[0]
    rows = []
    for cost in costs:
        mean, of_first = (sum(one.seconds) / len(one.seconds) for one in (cost, first))
        ratio = _cell(mean / of_first, step_ratio(first, cost), ".2f")
        rows.append(
            [
                cost.name,
                str(len(cost.seconds)),
                _cell(mean, step_seconds(cost), ".4g"),
                "" if cost is first else ratio,
                *(f"{cost.phases[phase]:.4g}" for phase in PHASES),
                "" if math.isnan(cost.response_tokens) else f"{cost.response_tokens:.0f}",
            ]
        )
    published = published_results()["cost_per_step_seconds"]
    empty = [""] * (len(PHASES) + 1)
    for size in ("3b", "7b"):
        grpo, papo = published[f"grpo_{size}"], published[f"papo_{size}"]
        rows.append([f"published, GRPO {size.upper()}", "", str(grpo), "", *empty])
        rows.append(
            [f"published, PAPO {size.upper()}", "", str(papo), f"{papo / grpo:.2f}", *empty]
        )
    columns = ("run", "steps", "s per step", "/ first run", *PHASES, "tokens per response")
    return markdown_table(columns, rows, texts=1) + "\n"


def cost_notes(costs: Sequence[RunCost]) -> list[str]:
    """Returns what must be known beside the table, a sentence per line."""
    notes = [
        "Means over steps with 95 % t intervals over the steps of one run: not over runs, "
        "and not over machines.",
        "Published: arXiv:2507.06448v5, Table 14; 2 (3B) and 4 (7B) H100-80G, 384 prompts with 5 "
        "responses a step.",
    ]
    first = costs[0]
    for other in costs[1:]:
        for what, before, after in (
            ("settings", _shared(first.settings), _shared(other.settings)),
            ("versions", first.versions, other.versions),
        ):
            if different := _differences(before, after):
                notes.append(
                    f"{first.name} and {other.name} differ in more than the method, {what}: "
                    + "; ".join(different)
                )
    return notes


def _shared(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in settings.items()
        if key.split(".")[0] in _COMPUTED_ALIKE and key not in _FREE
    }


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [
        f"{key} is {before.get(key, 'unset')!r} and {after.get(key, 'unset')!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def _config(folder: Path) -> dict[str, Any]:
    return read_object(
        folder / "config.json",
        remedy="It says how the run was made: restore it, or name the run_dir of a training run.",
    )


def _cell(value: float, interval: Interval | None, form: str) -> str:
    write = f"{{:{form}}}".format
    return f"{write(value)} {no_interval()}" if interval is None else interval_text(interval, write)
