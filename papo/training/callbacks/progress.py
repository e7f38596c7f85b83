"""Progress on the terminal: a live bar where there is one, a line per rollout where there is not."""

import time
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from papo.training.callbacks.record import finished_step

_WITHOUT_BAR = 64
"""Characters of the live line beside its bar, which has the rest of the terminal, up to 20."""

_PHASES = {
    "rollout": "sampling",
    "reward": "grading",
    "score": "scoring",
    "update": "update",
    "validation": "validation",
}
"""Of `FinishedStep.seconds`, as a reader sees them: a reward is a number already."""


class PhaseProgress(Callback):
    """Shows how far the run is, the time that is left, the reward, the perception KL and, in lines, the phases' seconds.

    Args:
        every_rollouts: without a terminal, print after every n-th rollout and the last.

    Raises:
        ValueError: `every_rollouts` is below 1.
    """

    def __init__(self, *, every_rollouts: int) -> None:
        if every_rollouts < 1:
            raise ValueError(
                "progress is printed every n-th rollout, n >= 1; "
                f"got {every_rollouts}. Set callbacks.progress.every_rollouts."
            )
        self.every_rollouts = every_rollouts
        self.console = Console()
        self._shown: RunProgress | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module: Any = pl_module
        self.console.quiet = not trainer.is_global_zero
        self._shown = RunProgress(
            self.console,
            done=module.rollout_step,
            total=module.num_rollouts,
            every=self.every_rollouts,
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        step = finished_step(pl_module)
        assert self._shown is not None, "training has started"
        self._shown.show(step.rollout_step, step.metrics, step.seconds)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._shown is not None:
            self._shown.stop()


class RunProgress:
    """A bar on a terminal, lines elsewhere.

    Args:
        console: where to.
        done: rollouts before this process began.
        total: of the whole run.
        every: without a terminal, a line after every so many rollouts and the last.
    """

    def __init__(self, console: Console, *, done: int, total: int, every: int) -> None:
        self.console, self.total, self.every = console, total, every
        self._began, self._done_before = time.monotonic(), done
        self._bar: Progress | None = None
        if console.quiet or not console.is_terminal:
            return
        self._bar = Progress(
            TextColumn("rollout"),
            MofNCompleteColumn(),
            BarColumn(bar_width=max(4, min(20, console.width - _WITHOUT_BAR))),
            TextColumn("{task.description}"),
            console=console,
        )
        self._bar.start()
        self._bar.add_task("", total=total, completed=done)

    def show(
        self, done: int, metrics: Mapping[str, int | float], seconds: Mapping[str, float]
    ) -> None:
        """Shows that so many rollouts are done, the last of them with these numbers."""
        said = f"{self._left(done)} left  {describe(metrics)}"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, description=said)
        elif done % self.every == 0 or done == self.total:
            phases = "  ".join(
                f"{_PHASES[phase]} {value:.2f} s" for phase, value in seconds.items()
            )
            self.console.print(
                f"rollout {done}/{self.total}  {said}  |  {phases}", highlight=False, soft_wrap=True
            )

    def stop(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _left(self, done: int) -> str:
        """Hours, minutes and seconds, at the mean speed of this process so far."""
        mean = (time.monotonic() - self._began) / (done - self._done_before)
        minutes, seconds = divmod(round(mean * (self.total - done)), 60)
        return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def describe(metrics: Mapping[str, int | float]) -> str:
    """What was earned, and how much the image mattered."""
    shown = {"reward": "reward/mean", "perception KL": "loss/perception_kl"}
    return "  ".join(
        f"{label} {metrics[name]:.3f}" for label, name in shown.items() if name in metrics
    )
