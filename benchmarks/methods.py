"""What a step of every method costs, in GRPO steps: the arms of a sweep of methods on PerceptionLab's model.

Each arm takes turns with GRPO. Nothing is learned (optimizer.lr=0), so both see the same pictures, questions and
responses in every round, whatever they would have become; two methods sample half of them from another view.
"""

import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback
from omegaconf import DictConfig

from benchmarks.measure import ratios, take_turns
from benchmarks.own_step import make_trainer
from benchmarks.report import Row, row_of, run_alone
from papo.commands import front_door
from papo.commands.arms import apply_arm
from papo.commands.building import instantiate
from papo.commands.training.plan import make_plan
from papo.commands.training.run import make_module
from papo.parallel import NoSharding, Ranks

SWEEP = ("+sweep=lab_successors", "reward=lab_partly_labelled")
"""Whose arms, under the conditions that they were compared in (docs/results/lab_successors.md)."""

BASELINE = "grpo"


def composed(*overrides: str, with_hydra: bool = False) -> DictConfig:
    """What the command line of the sweep composes, with or without Hydra's own part."""
    with initialize_config_dir(config_dir=front_door.CONFIG_FOLDER, version_base="1.3"):
        return compose("train", overrides=[*SWEEP, *overrides], return_hydra_config=with_hydra)


@cache
def swept() -> dict[str, Any]:
    """What the sweep sets in each of its jobs, by key; several values of a key are one text."""
    return dict(composed(with_hydra=True).hydra.sweeper.params)


def arms() -> tuple[str, ...]:
    """The sweep's arms, in its order."""
    return tuple(swept()["objective"].split(","))


def config_of(arm: str, folder: Path, *overrides: str) -> DictConfig:
    """What the sweep trains under the name of this arm, but for the learning rate."""
    own = {"objective": arm, "seed": 1, "sweep.arm": arm, "optimizer.lr": 0, "run_dir": folder}
    settings = {**swept(), **own}
    config = composed(*(f"{key}={value}" for key, value in settings.items()), *overrides)
    apply_arm(config)
    return config


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSeconds:
    """CPU seconds of one training step; `sampling` are those of writing and grading responses."""

    whole: float
    sampling: float


PARTS: dict[str, Callable[[StepSeconds], float]] = {
    "whole": lambda step: step.whole,
    "without sampling": lambda step: step.whole - step.sampling,
}


class StepClock(Callback):
    """Ends training after a step, and says how long it took."""

    def __init__(self) -> None:
        self.sampling = 0.0

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call; its seconds count as sampling."""

        def within(*arguments: Any, **named: Any) -> Any:
            started = time.thread_time()
            answer = call(*arguments, **named)
            self.sampling += time.thread_time() - started
            return answer

        return within

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        self.sampling, self._started = 0.0, time.thread_time()

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        whole = time.thread_time() - self._started
        self.seconds = StepSeconds(whole=whole, sampling=self.sampling)
        trainer.should_stop = True


class Arm:
    """An arm that can be trained step by step, by what train.py builds of its configuration."""

    def __init__(self, config: DictConfig) -> None:
        plan, policy = make_plan(config), instantiate(config.model)
        self.module = make_module(
            plan,
            policy,
            plan.make_engine(policy=policy),
            plan.source,
            Ranks(),
            NoSharding(),
            device=torch.device("cpu"),
            failure_folder=Path(config.run_dir),
        )
        self.clock = StepClock()
        collector: Any = self.module.collector
        collector.engine.sample = self.clock.timed(collector.engine.sample)
        collector.reward = self.clock.timed(collector.reward)
        self.steps: list[StepSeconds] = []

    def step(self) -> float:
        """Returns the CPU seconds of the next step; `steps` has their parts."""
        with warnings.catch_warnings():
            # The model is in evaluation mode on purpose, as in papo.training.fit.
            warnings.simplefilter("ignore")
            make_trainer([self.clock]).fit(self.module)
        self.steps.append(self.clock.seconds)
        return self.clock.seconds.whole


def rows_of(arm: str, repetitions: int, *overrides: str) -> list[Row]:
    """Steps of the arm over steps of GRPO, with and without sampling."""
    with tempfile.TemporaryDirectory() as folder:
        baseline, method = (
            Arm(config_of(name, Path(folder), *overrides)) for name in (BASELINE, arm)
        )
        take_turns(
            {"baseline": baseline.step, "method": method.step},
            repetitions=repetitions,
            warm_ups=1,
        )
    rows = []
    for case, part in PARTS.items():
        ours, theirs = ([part(step) for step in each.steps[1:]] for each in (method, baseline))
        rows.append(
            row_of(
                ratios(ours, theirs),
                benchmark=f"step of {arm} / step of {BASELINE}",
                case=case,
                goal=None,
                details={"seconds": {arm: ours, BASELINE: theirs}},
            )
        )
    return rows


def measure(repetitions: int, names: Sequence[str] | None = None, *overrides: str) -> list[Row]:
    """Rows of every arm; that of GRPO itself says how far ratios scatter."""
    torch.set_num_threads(1)
    return [row for arm in names or arms() for row in rows_of(arm, repetitions, *overrides)]


def main() -> None:
    run_alone("methods", measure, repetitions=9)


if __name__ == "__main__":
    main()
