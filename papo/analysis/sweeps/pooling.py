"""One sweep from several starts: arms compared within each start, and over the starts.

Two questions, two intervals. Would other starts show the difference? The starts are the units
(`over_starts`). Is it there in these starts, whatever the seed? The seeds are (`within_starts`).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from papo.analysis.sweeps.comparison import (
    SweepSummary,
    Tested,
    adjusted,
    find_baseline,
    summarize_sweep,
)
from papo.analysis.sweeps.measures import DIFFERENCE_OF_SHARES, bounds_of, in_order, unit_of
from papo.statistics import (
    Interval,
    detectable_over_starts,
    detectable_within_starts,
    paired_t_over_starts,
    paired_t_within_starts,
    t_interval,
    wilson_interval,
)
from papo.storage.sweep_folders import read_sweep
from papo.storage.sweep_runs import Sweep, SweepRun

_START = ("model.path", "model.hub_id", "model.revision")
_FREE = (*_START, "run_dir", "resume", "num_threads")
_FREE_GROUPS = ("logger", "callbacks", "sweep")


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledComparison:
    """One measure of an arm, minus the baseline's, paired by start and seed.

    Attributes:
        differences: start -> seed -> difference.
        over_starts: the starts are the units.
        within_starts: the seeds are, and the starts are fixed; None where a start has a single one.
    """

    differences: Mapping[str, Mapping[int, float]]
    over_starts: Tested
    within_starts: Tested | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledSummary:
    """Everything a pooled report shows.

    Attributes:
        starts: name of the start (its folder's) -> the summary of its sweep; at least two.
        comparisons: arm -> measure -> comparison over the starts that have both, at least two.
    """

    starts: Mapping[str, SweepSummary]
    comparisons: Mapping[str, Mapping[str, PooledComparison]]

    @property
    def baseline(self) -> str:
        """The arm the others are compared with, the same in all starts."""
        return next(iter(self.starts.values())).baseline

    @property
    def arms(self) -> tuple[str, ...]:
        """The baseline, then the others as the sweep lists them."""
        return tuple(dict.fromkeys(arm for each in self.starts.values() for arm in each.arms))

    @property
    def measures(self) -> tuple[str, ...]:
        """The results that any arm has."""
        return in_order(name for each in self.starts.values() for name in each.measures)

    @property
    def cost_and_stability(self) -> tuple[str, ...]:
        """The measures of cost and stability that any arm has."""
        return in_order(name for each in self.starts.values() for name in each.cost_and_stability)

    def start_means(self, arm: str, measure: str) -> dict[str, float]:
        """Returns start -> mean over its seeds, where the start has the arm and the measure."""
        return {
            start: each.scores[arm][measure].mean
            for start, each in self.starts.items()
            if measure in each.scores.get(arm, {})
        }

    def collapsed(self, arm: str) -> tuple[int, int, Interval]:
        """Returns how many runs of all starts collapsed, of how many, and the share.

        The Wilson interval takes runs for independent, though those of one start resemble each other.
        """
        signs = [each.signs[arm] for each in self.starts.values() if arm in each.signs]
        count, total = sum(len(one.collapsed) for one in signs), sum(one.num_runs for one in signs)
        return count, total, wilson_interval(count, total)


def read_starts(folders: Sequence[Path]) -> dict[str, Sweep]:
    """Returns the sweeps of several folders, by the name of their start.

    Raises:
        ValueError: fewer than two folders, one of them twice, a folder `read_sweep` refuses, different
            sweeps, arms whose settings differ in more than the start and the seed, or the same
            start twice.
    """
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise ValueError(
            "pooling needs at least two folders, each once; got " + ", ".join(map(str, folders))
        )
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [folder.as_posix() for folder in folders]
    sweeps = {name: read_sweep(folder) for name, folder in zip(names, folders, strict=True)}
    for (first_name, first), (name, sweep) in combinations(sweeps.items(), 2):
        _require_same_sweep(first_name, first, name, sweep)
    return sweeps


def summarize_starts(
    sweeps: Mapping[str, Sweep], *, baseline: str | None, arms: Sequence[str] | None = None
) -> PooledSummary:
    """Returns the summary of each start and the comparisons over them.

    Args:
        sweeps: start -> its finished runs.
        baseline: an arm; None takes grpo or gamma_0.0 where there is one, else the first.
        arms: compare these alone with the baseline; None takes all.

    Raises:
        ValueError: a start without a finished run of the baseline or of one of the arms.
    """
    baseline = find_baseline(next(iter(sweeps.values())), baseline)
    starts = {}
    for name, sweep in sweeps.items():
        try:
            starts[name] = summarize_sweep(sweep, baseline=baseline, arms=arms)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    pooled = PooledSummary(starts=starts, comparisons={})
    comparisons: dict[str, dict[str, PooledComparison]] = {arm: {} for arm in pooled.arms}
    for measure in (*pooled.measures, *pooled.cost_and_stability):
        if unit_of(measure) == "share":
            for arm, comparison in _compare(pooled, measure).items():
                comparisons[arm][measure] = comparison
    return PooledSummary(starts=starts, comparisons=comparisons)


def mean_over_starts(measure: str, means: Sequence[float]) -> tuple[float, Interval | None]:
    """Returns the mean of the starts' means, and its t interval over starts where there is one."""
    return math.fsum(means) / len(means), t_interval(means, bounds=bounds_of(measure))


def _compare(pooled: PooledSummary, measure: str) -> dict[str, PooledComparison]:
    found = {}
    for arm in pooled.arms:
        differences = {
            start: paired
            for start, each in pooled.starts.items()
            if arm != pooled.baseline and (paired := _paired(each, arm, measure))
        }
        if len(differences) >= 2:
            found[arm] = differences
    by_start = {arm: list(each.values()) for arm, each in found.items()}
    inside = {arm: each for arm, each in by_start.items() if all(len(seeds) >= 2 for seeds in each)}
    bounds = DIFFERENCE_OF_SHARES
    over = adjusted(
        {arm: paired_t_over_starts(each, bounds=bounds) for arm, each in by_start.items()},
        {arm: detectable_over_starts(each) for arm, each in by_start.items()},
    )
    within = adjusted(
        {arm: paired_t_within_starts(each, bounds=bounds) for arm, each in inside.items()},
        {arm: detectable_within_starts(each) for arm, each in inside.items()},
    )
    return {
        arm: PooledComparison(
            differences=each, over_starts=over[arm], within_starts=within.get(arm)
        )
        for arm, each in found.items()
    }


def _paired(summary: SweepSummary, arm: str, measure: str) -> dict[int, float]:
    """Seed -> arm minus baseline; empty where one of them lacks the measure."""
    first = summary.scores[summary.baseline].get(measure)
    second = summary.scores.get(arm, {}).get(measure)
    if first is None or second is None:
        return {}
    common = sorted(first.values.keys() & second.values.keys())
    return {seed: second.values[seed] - first.values[seed] for seed in common}


def _require_same_sweep(first_name: str, first: Sweep, name: str, sweep: Sweep) -> None:
    if not set(first.arms) & set(sweep.arms):
        raise ValueError(f"{first_name} and {name} have no arm in common; pool starts of one sweep")
    for arm in (arm for arm in first.arms if arm in sweep.arms):
        settings, others = (_settings(each.of_arm(arm)) for each in (first, sweep))
        for key in sorted(settings.keys() | others.keys()):
            if settings.get(key) != others.get(key):
                raise ValueError(
                    "folders that are pooled are one sweep from different starts: their arms have the "
                    f"same settings but for the model's path and the seed. {key} of {arm} is "
                    f"{_values(settings, key)} in {first_name} and {_values(others, key)} in {name}. "
                    "Report on them apart."
                )
    starts, other_starts = (_starts(each) for each in (first, sweep))
    if both := starts & other_starts:
        raise ValueError(
            f"{first_name} and {name} both start from {next(iter(both))[0]}, so they are not two "
            "starts. Put the seeds of one start into one folder (hydra.sweep.dir), or report on "
            "them apart."
        )


def _settings(runs: Sequence[SweepRun]) -> dict[str, set[str]]:
    """Setting -> its values over the runs of an arm, without those in which starts and seeds differ."""
    found: dict[str, set[str]] = {}
    for run in runs:
        for key, value in _fixed(run.settings):
            found.setdefault(key, set()).add(repr(value))
    return found


def _fixed(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        is_seed = key.split(".")[-1] == "seed"
        if key not in _FREE and key.split(".")[0] not in _FREE_GROUPS and not is_seed:
            yield key, value


def _values(settings: Mapping[str, set[str]], key: str) -> str:
    return " or ".join(sorted(settings.get(key, {"not set"})))


def _starts(sweep: Sweep) -> set[tuple[Any, ...]]:
    """The models that the runs began with, where their files say."""
    found = {tuple(run.settings.get(key) for key in _START) for run in sweep.runs}
    return found - {(None,) * len(_START)}
