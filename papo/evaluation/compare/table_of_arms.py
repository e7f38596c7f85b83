"""Several evaluations as one table, laid out as the paper's Table 1 (arXiv:2507.06448v5)."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from papo.evaluation.compare.comparison import FinishedEvaluation, comparable_problems
from papo.evaluation.scores import groups_of_columns
from papo.evaluation.settings import published_columns
from papo.statistics import (
    Interval,
    bootstrap_mean,
    bootstrap_mean_of_means,
    mean_relative_gain,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmScores:
    """One row. Shares are between 0 and 1, intervals 95 % over problems.

    Attributes:
        name: of the arm.
        baseline: the arm it is compared with; None for a baseline.
        columns: avg@k by benchmark.
        averages: unweighted means over the benchmarks of each group.
        gains: by group, the mean over its benchmarks of avg@k / the baseline's - 1; None where the
            baseline has a benchmark without a right answer. Empty for a baseline.
    """

    name: str
    baseline: str | None
    columns: Mapping[str, Interval]
    averages: Mapping[str, Interval]
    gains: Mapping[str, Interval | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableOfArms:
    """Evaluations of the same problems side by side.

    Attributes:
        view, num_responses: of all of them.
        columns: benchmarks, those of Table 1 first and in its order.
        groups: benchmarks behind each average: those of Table 1 that are whole, else all as `mean`.
        arms: in the order given.
        notes: settings in which arms differ, where that was allowed.
    """

    view: str
    num_responses: int
    columns: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]
    arms: tuple[ArmScores, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns nested dicts and lists of plain values, ready for JSON."""
        return asdict(self)


def tabulate_arms(
    evaluations: Mapping[str, FinishedEvaluation],
    *,
    baselines: Sequence[str],
    any_settings: bool,
    seed: int,
) -> TableOfArms:
    """Returns the table of several evaluations.

    Args:
        evaluations: by arm. An arm is compared with the last baseline before it.
        baselines: names of arms, the first arm among them.
        any_settings: allow arms that were sampled or graded differently, instead of refusing.
        seed: of the bootstrap.

    Raises:
        ValueError: an unknown baseline, a first arm that is none, or arms of other problems,
            references, settings or numbers of responses.
    """
    names = list(evaluations)
    if unknown := [name for name in baselines if name not in evaluations]:
        raise ValueError(f"a baseline is one of the arms {', '.join(names)}; got {unknown[0]!r}")
    if names[0] not in baselines:
        raise ValueError(
            f"an arm is compared with the last baseline before it, so the first arm is one; "
            f"{names[0]!r} is not. Name it with --baseline, or put a baseline first."
        )
    first = evaluations[names[0]]
    notes: dict[str, None] = {}
    for name in names[1:]:
        _, different = comparable_problems(
            first, evaluations[name], common_only=False, any_settings=any_settings
        )
        notes |= dict.fromkeys(f"{names[0]}, {name}: {setting}" for setting in different)
    columns = _columns(first)
    groups = {
        group: own for group, own in groups_of_columns().items() if set(own) <= set(columns)
    } or {"mean": columns}
    shares = {name: _shares(one, first) for name, one in evaluations.items()}
    identities: dict[str, list[Hashable]] = {}
    for key in first.verdicts:
        identities.setdefault(key[0], []).append(first.identities.get(key, key))
    arms, baseline = [], names[0]
    for name in names:
        baseline = name if name in baselines else baseline
        arms.append(
            _scores(
                name,
                None if name == baseline else baseline,
                shares,
                identities,
                columns,
                groups,
                seed,
            )
        )
    return TableOfArms(
        view=first.view,
        num_responses=first.num_responses,
        columns=columns,
        groups=groups,
        arms=tuple(arms),
        notes=tuple(notes),
    )


def _scores(
    name: str,
    baseline: str | None,
    shares: Mapping[str, Mapping[str, list[float]]],
    identities: Mapping[str, Sequence[Hashable]],
    columns: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    seed: int,
) -> ArmScores:
    own = shares[name]
    gains: dict[str, Interval | None] = {}
    if baseline is not None:
        for group, members in groups.items():
            before = [shares[baseline][column] for column in members]
            has_ratio = all(any(values) for values in before)
            gains[group] = (
                mean_relative_gain(
                    before,
                    [own[column] for column in members],
                    names=[identities[column] for column in members],
                    seed=seed,
                )
                if has_ratio
                else None
            )
    return ArmScores(
        name=name,
        baseline=baseline,
        columns={column: bootstrap_mean(own[column], seed=seed) for column in columns},
        averages={
            group: bootstrap_mean_of_means(
                [own[column] for column in members],
                names=[identities[column] for column in members],
                seed=seed,
            )
            for group, members in groups.items()
        },
        gains=gains,
    )


def _columns(evaluation: FinishedEvaluation) -> tuple[str, ...]:
    found = dict.fromkeys(benchmark for benchmark, _ in evaluation.verdicts)
    published = [column for column in published_columns() if column in found]
    return (*published, *(column for column in found if column not in published))


def _shares(evaluation: FinishedEvaluation, first: FinishedEvaluation) -> dict[str, list[float]]:
    """Per benchmark the share of right responses to each problem, in the order of the first arm."""
    shares: dict[str, list[float]] = {}
    for key in first.verdicts:
        row = evaluation.verdicts[key]
        shares.setdefault(key[0], []).append(sum(row) / len(row))
    return shares
