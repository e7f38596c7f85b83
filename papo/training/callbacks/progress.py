"""Progress on the terminal: a live bar where there is one, a line per rollout where there is not."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from papo.training.callbacks.record import finished_step
from papo.training.module import FinishedStep


class PhaseProgress(Callback):
    """Shows the reward, the perception KL and the seconds each phase took.

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
        self._bar: Progress | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.console.quiet = not trainer.is_global_zero
        if self.console.quiet or not self.console.is_terminal:
            return
        module: Any = pl_module
        self._bar = Progress(
            TextColumn("rollout"),
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=self.console,
        )
        self._bar.start()
        self._bar.add_task("", total=module.num_rollouts, completed=module.rollout_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        step, module = finished_step(pl_module), pl_module
        if self._bar is not None:
            self._bar.update(
                self._bar.task_ids[0], completed=step.rollout_step, description=describe(step)
            )
        elif (
            step.rollout_step % self.every_rollouts == 0 or step.rollout_step == module.num_rollouts
        ):
            self.console.print(
                f"rollout {step.rollout_step}/{module.num_rollouts}  {describe(step)}",
                highlight=False,
                soft_wrap=True,
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def describe(step: FinishedStep) -> str:
    """One line: what was earned, how much the image mattered, where the time went."""
    shown = {"reward": "reward/mean", "perception_kl": "loss/perception_kl"}
    numbers = [
        f"{label} {step.metrics[name]:.3f}" for label, name in shown.items() if name in step.metrics
    ]
    phases = [f"{phase} {seconds:.2f}s" for phase, seconds in step.seconds.items()]
    return "  ".join(numbers) + "  |  " + "  ".join(phases)
