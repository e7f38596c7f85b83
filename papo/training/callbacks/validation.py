"""Validation while training: held-out problems every n rollouts, the best checkpoint, an early end."""

import math
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from papo.training.best import Best, write_best
from papo.training.callbacks.record import finished_step
from papo.training.checkpoints import RolloutCheckpoint
from papo.training.held_out import HeldOutEvaluations, validation_names
from papo.training.loggers import log_evaluation
from papo.training.validation_settings import ValidationSettings


class EvaluateAtEnd(Callback):
    """Evaluates on held-out problems after the last rollout, while the weights are where the run computes.

    Loggers are told, unless a row of the run has told them. A run that has no rollout left to do comes past this.

    Args:
        evaluations: on held-out problems.
    """

    def __init__(self, *, evaluations: HeldOutEvaluations) -> None:
        self.evaluations = evaluations

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module: Any = pl_module
        if self.evaluations.recorded(module.rollout_step, module.collector.ranks) is None:
            found = self.evaluations.now(module, trainer)
            log_evaluation(trainer.loggers, found["metrics"], module.rollout_step)


class Validation(Callback):
    """Adds `validation/*` to the metrics of every n-th rollout; the others have no number there (NaN).

    All of it is a function of the policy and the seeds, and what it remembers is in the checkpoints, so a resumed
    run has the same metrics and the same best checkpoint.

    Args:
        evaluations: on held-out problems.
        settings: when, and what follows.

    Attributes:
        best: the best validation so far; one that measured no number (NaN) never is.
        waited: validations since then.
        without_number: how many of these measured no number.
    """

    def __init__(self, *, evaluations: HeldOutEvaluations, settings: ValidationSettings) -> None:
        self.evaluations = evaluations
        self.settings = settings
        self.names = validation_names(evaluations.held_out.names)
        self.best: Best | None = None
        self.waited = self.without_number = 0

    @property
    def rule(self) -> str | None:
        """What may end the run before its last rollout."""
        if self.settings.patience is None:
            return None
        rule = f"validation.patience={self.settings.patience} on {self.settings.monitor}"
        if not self.without_number:
            return rule
        were = "was" if self.without_number == 1 else "were"
        return f"{rule} ({self.without_number} of the last {self.waited} {were} no number)"

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": None if self.best is None else asdict(self.best),
            "waited": self.waited,
            "without_number": self.without_number,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        best = state_dict["best"]
        self.best = None if best is None else Best(**best)
        self.waited = state_dict["waited"]
        self.without_number = state_dict.get("without_number", 0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.settings.keep_best:
            return
        self._keep(trainer)
        # A run that was killed may have said of a rollout that is done again.
        if trainer.is_global_zero:
            write_best(Path(trainer.default_root_dir), self.best)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        module: Any = pl_module
        step = finished_step(module)
        step.metrics.update(dict.fromkeys(self.names, math.nan))
        step.seconds["validation"] = 0.0
        if step.rollout_step % self.settings.every_rollouts:
            return
        began = perf_counter()
        found = self.evaluations.recorded(step.rollout_step, module.collector.ranks)
        if found is None:
            found = self.evaluations.now(module, trainer)
        step.seconds["validation"] = perf_counter() - began
        step.metrics.update(found["metrics"])
        value = found["metrics"][self.settings.monitor]
        if not math.isnan(value) and (self.best is None or value > self.best.value):
            self.best = Best(
                rollout_step=step.rollout_step, metric=self.settings.monitor, value=value
            )
            self.waited = self.without_number = 0
        else:
            self.waited += 1
            self.without_number += math.isnan(value)
        self._keep(trainer)
        if self.settings.patience is not None and self.waited >= self.settings.patience:
            trainer.should_stop = True

    def _keep(self, trainer: Trainer) -> None:
        if self.settings.keep_best:
            for callback in trainer.checkpoint_callbacks:
                if isinstance(callback, RolloutCheckpoint):
                    callback.best = self.best
