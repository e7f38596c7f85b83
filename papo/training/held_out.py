"""How good a policy is on problems that its run does not train on: before, in between and after.

Here: what is evaluated when, and what is kept of it. Not here: sampling and grading, which the data themselves
or papo.evaluation bring (`HeldOut`), and what follows from a validation (papo.training.callbacks.validation).
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import Trainer

from papo.parallel import Ranks
from papo.storage.tables import append_jsonl
from papo.training.module import TrainingModule
from papo.training.random_state import random_state, restore_random_state

EVALUATIONS = "evaluations.jsonl"
"""Of a run's folder: a line for each evaluation on held-out problems."""

PREFIX = "validation/"
"""Of the names of its metrics."""

ACCURACY = f"{PREFIX}accuracy"
"""Mean over the sets of their accuracies, each counting the same."""


@runtime_checkable
class Report(Protocol):
    """What an evaluation found."""

    def scalars(self) -> dict[str, float]:
        """Flat numbers `SET/accuracy`, `SET/...`, shares between 0 and 1 but for what its name says."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Plain values by the names of the sets, ready for JSON."""
        ...


@runtime_checkable
class HeldOut(Protocol):
    """Problems that a run does not train on, and how responses to them are judged.

    Equal policies are given equal numbers, whenever and on however many ranks they are asked.
    """

    @property
    def names(self) -> Sequence[str]:
        """The keys of `Report.scalars`, before anything is evaluated."""
        ...

    def evaluate(self, policy: Any, engine: Any, *, ranks: Ranks) -> Report:
        """Called on all ranks, which all get the report."""
        ...

    def table(self, reports: Mapping[str, Mapping[str, Any]]) -> Any:
        """What a terminal shows of `Report.to_dict` at several moments, by the names of the moments."""
        ...


@runtime_checkable
class HoldsOut(Protocol):
    """A data set that has held-out problems of its own."""

    def held_out(self, *, num_problems: int, num_responses: int, seed: int) -> HeldOut: ...


def validation_metrics(scalars: Mapping[str, float]) -> dict[str, float]:
    """Returns numbers of a report under the names of metrics, their mean accuracy first."""
    accuracies = [value for name, value in scalars.items() if name.endswith("/accuracy")]
    named = {metric_name(name): float(value) for name, value in scalars.items()}
    return {ACCURACY: sum(accuracies) / len(accuracies), **named}


def validation_names(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the keys of `validation_metrics` for those of a report."""
    return (ACCURACY, *map(metric_name, names))


def metric_name(name: str) -> str:
    """Returns e.g. `validation/counter_prior/accuracy` for `counter-prior/accuracy`."""
    return PREFIX + re.sub(r"[^\w/]+", "_", name)


class HeldOutEvaluations:
    """Evaluates the policy of a run on held-out problems, once after each rollout that is asked about.

    What was found stands in a table of the run's folder, so a resumed run does none of it twice. Nothing of the run
    changes by it: neither the state of the generators of random numbers nor anything that an update reads.

    Args:
        held_out: the problems.
        greedy: whether the most likely tokens are taken, instead of drawing as rollouts are drawn.
        folder: of the run.
    """

    def __init__(self, held_out: HeldOut, *, greedy: bool, folder: Path) -> None:
        self.held_out = held_out
        self.greedy = greedy
        self.file = folder / EVALUATIONS

    def recorded(self, rollout_step: int, ranks: Ranks) -> dict[str, Any] | None:
        """Returns what was found after so many rollouts; None where it was not asked. On all ranks.

        Returns:
            `rollout_step`, `metrics` as of `validation_metrics`, and `sets` as of `Report.to_dict`.
        """

        def found() -> dict[str, Any] | None:
            lines = self.file.read_text("utf-8").splitlines() if self.file.exists() else []
            rows = [row for row in map(json.loads, lines) if row["rollout_step"] == rollout_step]
            return rows[-1] if rows else None

        return ranks.first(found)

    def now(self, module: TrainingModule, trainer: Trainer) -> dict[str, Any]:
        """Returns what the policy is worth now, as `recorded` does; all ranks call it."""
        collector, step = module.collector, module.rollout_step
        ranks = collector.ranks
        before = random_state()
        with trainer.precision_plugin.train_step_context(), collector.sampling(step):
            engine: Any = collector.engine
            report = self.held_out.evaluate(
                collector.policy, engine.greedy() if self.greedy else engine, ranks=ranks
            )
        restore_random_state(before)
        record = {
            "rollout_step": step,
            "metrics": validation_metrics(report.scalars()),
            "sets": report.to_dict(),
        }
        if ranks.writes:
            append_jsonl(self.file, record)
        return record
