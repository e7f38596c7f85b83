"""What the arms of a sweep measured over their seeds, and how they differ from one of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from papo.analysis.sweeps.measures import (
    COST_AND_STABILITY,
    DIFFERENCE_OF_SHARES,
    at_equal_cost,
    bounds_of,
    in_order,
    unit_of,
)
from papo.analysis.watched_curves import WATCHED
from papo.statistics import (
    Collapse,
    Interval,
    MeanDifference,
    benjamini_hochberg,
    judge_collapse,
    minimum_detectable_difference,
    paired_t,
    t_interval,
    wilson_interval,
)
from papo.storage.sweep_runs import Sweep, SweepRun, select_arms, window


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmScore:
    """One measure of one arm.

    Attributes:
        values: seed -> value.
        mean: over the seeds.
        interval: 95 % of Student's t over the seeds; None for a single one, and where all agree.
    """

    values: Mapping[int, float]
    mean: float
    interval: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """A mean difference of an arm and the baseline in one measure, tested.

    Attributes:
        difference: over the seeds that both have, at least two, or over starts; with 95 % interval and p-value.
        q_value: the p-value adjusted over the arms of its measure (Benjamini and Hochberg).
        detectable: the smallest true difference that this test finds with probability 0.8; None where
            all differences agree.
    """

    difference: MeanDifference
    q_value: float
    detectable: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """How close an arm came to collapse.

    Attributes:
        verdicts: seed -> verdict of `papo.statistics.judge_collapse`.
        rise: watched curve -> (mean over seeds of the first tenth, of the highest tenth).
    """

    verdicts: Mapping[int, Collapse]
    rise: Mapping[str, tuple[float, float]]

    @property
    def collapsed(self) -> tuple[int, ...]:
        """The seeds that did."""
        return tuple(seed for seed, verdict in self.verdicts.items() if verdict)

    @property
    def num_runs(self) -> int:
        """Of how many."""
        return len(self.verdicts)

    @property
    def collapsed_share(self) -> Interval:
        """With its Wilson interval."""
        return wilson_interval(len(self.collapsed), self.num_runs)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSummary:
    """Everything a report shows.

    Attributes:
        baseline: the arm the others are compared with.
        scores: arm -> measure -> score.
        comparisons: arm -> measure -> comparison, where two seeds are common; not of the baseline,
            and of shares alone.
        signs: arm -> its signs of collapse.
    """

    sweep: Sweep
    baseline: str
    scores: Mapping[str, Mapping[str, ArmScore]]
    comparisons: Mapping[str, Mapping[str, Tested]]
    signs: Mapping[str, Signs]

    @property
    def arms(self) -> tuple[str, ...]:
        """The baseline, then the others as the sweep lists them."""
        return tuple(self.scores)

    @property
    def measures(self) -> tuple[str, ...]:
        """The results that any arm has, the paper's averages first."""
        return tuple(name for name in self._found if name not in COST_AND_STABILITY)

    @property
    def cost_and_stability(self) -> tuple[str, ...]:
        """Those of these measures that any arm has."""
        return tuple(name for name in self._found if name in COST_AND_STABILITY)

    @property
    def _found(self) -> tuple[str, ...]:
        return in_order(name for scores in self.scores.values() for name in scores)


def summarize_sweep(
    sweep: Sweep, *, baseline: str | None, arms: Sequence[str] | None = None
) -> SweepSummary:
    """Returns scores, comparisons and signs of collapse.

    Args:
        sweep: the finished runs.
        baseline: an arm; None takes grpo or gamma_0.0 where there is one, else the first.
        arms: compare these alone with the baseline; None takes all.

    Raises:
        ValueError: no finished run of the baseline or of one of the arms.
    """
    baseline = find_baseline(sweep, baseline)
    if arms is not None:
        sweep = select_arms(sweep, [baseline, *arms])
    sweep = at_equal_cost(sweep)
    ordered = (baseline, *(arm for arm in sweep.arms if arm != baseline))
    scores = {arm: _scores(sweep.of_arm(arm)) for arm in ordered}
    comparisons: dict[str, dict[str, Tested]] = {arm: {} for arm in ordered}
    for measure in in_order(name for each in scores.values() for name in each):
        if unit_of(measure) != "share":
            continue
        for arm, comparison in _compare(scores, measure, baseline).items():
            comparisons[arm][measure] = comparison
    return SweepSummary(
        sweep=sweep,
        baseline=baseline,
        scores=scores,
        comparisons=comparisons,
        signs={arm: _signs(sweep.of_arm(arm)) for arm in ordered},
    )


def find_baseline(sweep: Sweep, wanted: str | None) -> str:
    """Returns the arm that the others are compared with: the wanted one, grpo, gamma_0.0 or the first.

    Raises:
        ValueError: no finished run of the wanted arm.
    """
    if wanted is None:
        return next((a for a in ("grpo", "gamma_0.0") if a in sweep.arms), sweep.arms[0])
    if wanted not in sweep.arms:
        raise ValueError(
            f"--baseline is an arm with a finished run; got {wanted!r}, and there are "
            f"{', '.join(sweep.arms)}"
        )
    return wanted


def _scores(runs: tuple[SweepRun, ...]) -> dict[str, ArmScore]:
    scores = {}
    for measure in dict.fromkeys(name for run in runs for name in run.scores):
        values = {run.seed: run.scores[measure] for run in runs if measure in run.scores}
        numbers = list(values.values())
        scores[measure] = ArmScore(
            values=values,
            mean=sum(numbers) / len(numbers),
            interval=t_interval(numbers, bounds=bounds_of(measure)),
        )
    return scores


def _compare(
    scores: Mapping[str, Mapping[str, ArmScore]], measure: str, baseline: str
) -> dict[str, Tested]:
    reference = scores[baseline][measure].values if measure in scores[baseline] else {}
    differences, detectable = {}, {}
    for arm, of_arm in scores.items():
        if arm == baseline or measure not in of_arm:
            continue
        values = of_arm[measure].values
        seeds = sorted(values.keys() & reference.keys())
        if len(seeds) < 2:
            continue
        first, second = [reference[s] for s in seeds], [values[s] for s in seeds]
        differences[arm] = paired_t(first, second, bounds=DIFFERENCE_OF_SHARES)
        detectable[arm] = minimum_detectable_difference(
            [b - a for a, b in zip(first, second, strict=True)]
        )
    return adjusted(differences, detectable)


def adjusted(
    differences: Mapping[str, MeanDifference], detectable: Mapping[str, float | None]
) -> dict[str, Tested]:
    """Returns the tests of one measure with their q-values.

    Args:
        differences: of each arm.
        detectable: of each arm.
    """
    q_values = benjamini_hochberg([each.p_value for each in differences.values()])
    return {
        arm: Tested(difference=difference, q_value=q, detectable=detectable[arm])
        for (arm, difference), q in zip(differences.items(), q_values, strict=True)
    }


def _signs(runs: tuple[SweepRun, ...]) -> Signs:
    rise = {}
    for name, watched in WATCHED.items():
        tenths = [
            _tenths(run.curves[watched.column]) for run in runs if watched.column in run.curves
        ]
        if tenths:
            rise[name] = (
                sum(means[0] for means in tenths) / len(tenths),
                sum(max(means) for means in tenths) / len(tenths),
            )
    return Signs(verdicts={run.seed: judge_collapse(run.curves) for run in runs}, rise=rise)


def _tenths(values: tuple[float, ...]) -> list[float]:
    """Means over a window of a tenth of the rollouts, moved along one by one."""
    size = window(values)
    return [sum(values[i : i + size]) / size for i in range(len(values) - size + 1)]
