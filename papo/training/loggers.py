"""Weights & Biases for a run folder; CSV is always written (RecordMetrics), TensorBoard is Lightning's."""

import hashlib
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import WandbLogger


def wandb_logger(
    *,
    run_dir: str,
    project: str,
    group: str | None,
    mode: Literal["offline", "online", "disabled"],
) -> WandbLogger:
    """Returns a W&B logger whose run belongs to the folder: resuming continues it.

    Offline needs no account; `wandb sync` uploads later.

    Raises:
        ValueError: an unknown mode.
    """
    if mode not in ("offline", "online", "disabled"):
        raise ValueError(
            f"W&B runs offline, online or disabled; got {mode!r}. Set logger.wandb.mode."
        )
    folder = Path(run_dir).resolve()
    logger = WandbLogger(
        project=project,
        group=group,
        name=folder.name,
        # Never the id of another folder, always the same id for this one.
        id=hashlib.sha256(str(folder).encode()).hexdigest()[:12],
        save_dir=folder,
        mode=mode,
        resume="allow",
    )
    # Rollouts are the x-axis of everything; W&B's own step would count calls.
    logger.experiment.define_metric("rollout_step")
    logger.experiment.define_metric("*", step_metric="rollout_step")
    return logger


def finish_loggers(loggers: list[Any]) -> None:
    """Ends every W&B run: the next run of this process must not write into it."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()
