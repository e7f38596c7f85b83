"""metrics.csv, timings.csv, and the same numbers for every logger."""

import math
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from papo.storage.tables import append_csv
from papo.training.module import FinishedStep


class RecordMetrics(Callback):
    """Writes a row per rollout; the loggers' x-axis counts rollouts, not optimiser steps.

    Raises:
        ValueError: a callback monitors what the run does not measure.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        step = finished_step(pl_module)
        folder = Path(trainer.default_root_dir)
        if trainer.is_global_zero:
            append_csv(folder / "metrics.csv", step.metrics)
            append_csv(folder / "timings.csv", {"rollout_step": step.rollout_step, **step.seconds})
        timings = {f"seconds/{phase}": value for phase, value in step.seconds.items()}
        # What was not measured after this rollout.
        measured = {name: value for name, value in step.metrics.items() if not math.isnan(value)}
        known = {*step.metrics, *trainer.callback_metrics}
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if (monitor := getattr(callback, "monitor", None)) is not None and monitor not in known:
                raise ValueError(
                    f"{type(callback).__name__} monitors {monitor!r}, which this run does not measure; "
                    f"callbacks.*.monitor is one of {', '.join(sorted(known))}"
                )
        for logger in trainer.loggers:
            logger.log_metrics({**measured, **timings}, step=step.rollout_step)


def finished_step(module: LightningModule) -> FinishedStep:
    """The step that has just ended."""
    step = module.last_step
    assert isinstance(step, FinishedStep), "callbacks run after a training step of TrainingModule"
    return step
