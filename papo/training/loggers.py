"""Weights & Biases for a run folder; CSV is always written (RecordMetrics), TensorBoard is Lightning's."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import WandbLogger

from papo.training.aliases import Formula, aliased, choose_aliases

_FLUSH, _FLUSH_SECONDS = "x_transaction_log_flush_interval", 0.2


class RolloutWandbLogger(WandbLogger):
    """W&B whose step counts rollouts, with further names for the same numbers.

    Args:
        aliases: see `choose_aliases`; a metric of our own wins over an alias of its name.
        settings: of Lightning's logger.
    """

    def __init__(self, *, aliases: Mapping[str, Formula], **settings: Any) -> None:
        super().__init__(**settings)
        self.aliases = aliases
        self.waiting: dict[str, float | int] = {}

    def log_metrics(self, metrics: Mapping[str, float | int], step: int | None = None) -> None:
        """Logs the metrics of a rollout and closes its row; what others log waits for that row."""
        if "rollout_step" not in metrics:
            self.waiting.update(metrics)
            return
        row = {**self.waiting, **aliased(self.aliases, metrics), **metrics}
        self.waiting = {}
        self.experiment.log(row, step=step, commit=True)


def wandb_logger(
    *,
    run_dir: str,
    project: str,
    group: str | None,
    mode: Literal["offline", "online", "disabled"],
    aliases: Sequence[str] = (),
    alias_tables: Mapping[str, Mapping[str, str]] | None = None,
) -> RolloutWandbLogger:
    """Returns a W&B logger whose run belongs to the folder: resuming continues it.

    Offline needs no account; `wandb sync` uploads later.

    Args:
        run_dir: the run's folder.
        project: where W&B files the run.
        group: what it files together with it, such as the jobs of a multirun; None for nothing.
        mode: whether it talks to a server.
        aliases: the names of the tables whose aliases are logged too.
        alias_tables: for each table, alias -> formula (papo.training.aliases).

    Raises:
        ValueError: an unknown mode, aliases that cannot be chosen together, or W&B refuses the run.
    """
    if mode not in ("offline", "online", "disabled"):
        raise ValueError(
            f"W&B runs offline, online or disabled; got {mode!r}. Set logger.wandb.mode."
        )
    # Here, because importing it takes a second that few runs need.
    import wandb

    has_setting = _FLUSH in wandb.Settings.model_fields
    flush: dict[str, Any] = {_FLUSH: _FLUSH_SECONDS} if has_setting else {}
    folder = Path(run_dir).resolve()
    logger = RolloutWandbLogger(
        aliases=choose_aliases(alias_tables or {}, aliases),
        project=project,
        group=group,
        job_type="train",
        # Jobs of a multirun are called 0, 1, ...: the folder above tells them apart.
        name=f"{folder.parent.name}/{folder.name}",
        # Never the id of another folder, always the same id for this one.
        id=hashlib.sha256(str(folder).encode()).hexdigest()[:12],
        save_dir=folder,
        mode=mode,
        resume="allow",
        # A killed run leaves the rows that metrics.csv has. Versions without the setting keep up to a buffer.
        settings=wandb.Settings(**flush),
    )
    try:
        # Rollouts are the x-axis of everything.
        logger.experiment.define_metric("rollout_step")
        logger.experiment.define_metric("*", step_metric="rollout_step")
    except wandb.Error as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"W&B does not start the run: {reason} Set logger.wandb.project, or logger.wandb.mode=offline."
        ) from error
    return logger


def log_evaluation(loggers: Sequence[Any], metrics: Mapping[str, float], rollout_step: int) -> None:
    """Logs what was evaluated before or after a run, beside the rows of its rollouts."""
    for logger in loggers:
        # W&B takes no second row of a step; its x-axis is rollout_step.
        step = None if isinstance(logger, WandbLogger) else rollout_step
        logger.log_metrics({"rollout_step": rollout_step, **metrics}, step=step)


def finish_loggers(loggers: list[Any], *, failed: bool = False) -> None:
    """Ends every W&B run, so that the next run of this process does not write into it.

    Args:
        loggers: of the run.
        failed: whether W&B should show the run as failed.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish(exit_code=int(failed))
