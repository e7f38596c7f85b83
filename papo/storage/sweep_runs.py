"""The finished runs of a sweep and the jobs without a result, as the reports read them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from papo.statistics import ACCURACY_COLUMNS

PUBLISHED_AVERAGES = ("general", "vision", "overall")

COST_COLUMN, COST_SETTING = "prompts_drawn", "rollout.num_responses"
"""Of metrics.csv and of the configuration: their product is how many responses a run has sampled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRun:
    """One finished job.

    Attributes:
        folder: relative to the sweep's.
        arm: what it is a seed of.
        seed: of the run.
        curves: column of metrics.csv -> one value per rollout.
        scores: measure -> value, shares between 0 and 1; see `papo.storage.sweep_folders.read_sweep`.
        commit: of the source it ran on; None outside git.
        settings: its configuration, dotted key -> value.
    """

    folder: str
    arm: str
    seed: int
    curves: Mapping[str, tuple[float, ...]]
    scores: Mapping[str, float]
    commit: str | None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def accuracies(self) -> tuple[float, ...]:
        """The accuracy of each rollout."""
        return next(self.curves[name] for name in ACCURACY_COLUMNS if name in self.curves)

    @property
    def drawn(self) -> tuple[float, ...]:
        """Responses sampled by the end of each rollout, those that dynamic sampling dropped included.

        Empty where the run's files do not say.
        """
        return responses_drawn(self.curves, self.settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class LostRun:
    """A job without a result.

    Attributes:
        folder: relative to the sweep's.
        arm: what it was to be a seed of.
        seed: of the run; None where nothing says.
        status: failed, interrupted, unfinished, damaged, or missing.
        reason: what went wrong, where it is known.
    """

    folder: str
    arm: str
    seed: int | None
    status: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """The jobs of one sweep.

    Attributes:
        name: of the sweep; of the folder, where it is an unnamed multirun.
        runs: the finished ones, at least one.
        lost: the others; those of the grid of arms and seeds that left no trace included.
        published: arm -> paths of rows in papo/storage/published.yaml.
        arm_order: arms as the sweep lists them, where its files say so.
    """

    name: str
    runs: tuple[SweepRun, ...]
    lost: tuple[LostRun, ...]
    published: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    arm_order: tuple[str, ...] = ()

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms with a finished run, as the sweep lists them; the others by name, numbers by value."""
        found = {run.arm for run in self.runs}
        listed = [arm for arm in self.arm_order if arm in found]
        return (*listed, *sorted(found - set(listed), key=natural_order))

    def of_arm(self, arm: str) -> tuple[SweepRun, ...]:
        """The finished runs of an arm, by seed."""
        return tuple(sorted((run for run in self.runs if run.arm == arm), key=lambda r: r.seed))


def responses_drawn(
    curves: Mapping[str, tuple[float, ...]], settings: Mapping[str, Any]
) -> tuple[float, ...]:
    """Returns the responses sampled by the end of each rollout; empty where nothing says."""
    size = settings.get(COST_SETTING)
    return tuple(size * prompts for prompts in curves.get(COST_COLUMN, ())) if size else ()


def natural_order(text: str) -> list[tuple[int, float, str]]:
    """A key that sorts the numbers within names by value: 1e-05 before 0.05 before 0.1, 9 before 10."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[-+]?\d+)?)", text)
    return [(0, float(p), "") if i % 2 else (1, 0.0, p) for i, p in enumerate(parts)]


def select_arms(sweep: Sweep, arms: Sequence[str]) -> Sweep:
    """Returns the sweep with these arms alone.

    Raises:
        ValueError: one of them has no finished run.
    """
    if unknown := [arm for arm in arms if arm not in sweep.arms]:
        raise ValueError(
            f"--arms are arms with a finished run; got {unknown[0]!r}, and there are "
            f"{', '.join(sweep.arms)}"
        )
    return replace(
        sweep,
        runs=tuple(run for run in sweep.runs if run.arm in arms),
        lost=tuple(job for job in sweep.lost if job.arm in arms),
    )


def require_comparable(runs: Sequence[SweepRun]) -> None:
    """Passes the finished runs of one sweep.

    Raises:
        ValueError: two of one arm and seed, or of different length.
    """
    seen: dict[tuple[str, int], str] = {}
    for run in runs:
        if other := seen.get((run.arm, run.seed)):
            raise ValueError(
                f"{other} and {run.folder} are both seed {run.seed} of {run.arm}; a report compares one "
                "run per arm and seed. Give the folder of one sweep."
            )
        seen[run.arm, run.seed] = run.folder
    lengths = {len(run.accuracies): run.folder for run in runs}
    if len(lengths) > 1:
        raise ValueError(
            "learning curves are compared over the same rollouts; got "
            + " and ".join(f"{length} ({folder})" for length, folder in sorted(lengths.items()))
            + ". Report on them apart, or repeat with the same training.num_rollouts."
        )


def window(values: Sequence[float]) -> int:
    """A tenth of the rollouts, at least one: what the start and the end of a run are."""
    return max(1, len(values) // 10)
