"""Checkpoints: written at rollout boundaries, whole or not at all, the newest few kept."""

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import CheckpointIO

from papo.training.failures import CheckpointNotWritten

_NAME = re.compile(r"rollout_(\d{6})\.ckpt")
_UNFINISHED = ".unfinished"


def checkpoint_path(folder: Path, rollout_step: int) -> Path:
    """Where the state after `rollout_step` rollouts is kept."""
    return folder / f"rollout_{rollout_step:06d}.ckpt"


def checkpoints(folder: Path) -> dict[int, Path]:
    """Finished checkpoints by the number of rollouts they follow, in ascending order."""
    found = ((_NAME.fullmatch(path.name), path) for path in folder.glob("*.ckpt"))
    return dict(sorted((int(match.group(1)), path) for match, path in found if match))


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of a folder, or None before the first."""
    found = checkpoints(folder)
    return found[max(found)] if found else None


class AtomicCheckpointIO(CheckpointIO):
    """Writes a checkpoint next to its place, forces it to the disk, then moves it there.

    Whatever interrupts the writing (a kill, a full disk, a power cut), the place holds a whole
    checkpoint or none, and other checkpoints are not touched. Reads tensors and plain containers
    only: a checkpoint cannot run code.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        path = Path(path)
        unfinished = path.with_name(path.name + _UNFINISHED)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
            _sync_folder(path.parent)
        # PyTorch's zip writer turns a full disk into a RuntimeError.
        except (OSError, RuntimeError) as error:
            unfinished.unlink(missing_ok=True)
            raise CheckpointNotWritten(path=path, reason=_root_cause(error)) from error

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return loaded

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


class RolloutCheckpoint(Checkpoint):
    """Saves after every n-th rollout and after the last one, and keeps the newest few.

    Args:
        every_rollouts: n.
        keep_last: how many checkpoints stay.

    Raises:
        ValueError: a setting below 1.
    """

    def __init__(self, *, every_rollouts: int, keep_last: int) -> None:
        for name, value in (("every_rollouts", every_rollouts), ("keep_last", keep_last)):
            if value < 1:
                raise ValueError(
                    f"checkpoints need {name} >= 1; got {value}. Set callbacks.checkpoint.{name}."
                )
        self.every_rollouts = every_rollouts
        self.keep_last = keep_last

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        module: Any = pl_module
        step = module.rollout_step
        if step % self.every_rollouts and step != module.num_rollouts:
            return
        folder = Path(trainer.default_root_dir) / "checkpoints"
        trainer.save_checkpoint(checkpoint_path(folder, step))
        # Older ones go only after the newest is safely in place.
        for path in list(checkpoints(folder).values())[: -self.keep_last]:
            path.unlink()


def remove_unfinished(folder: Path) -> None:
    """Deletes what a killed run left half-written."""
    for path in folder.glob(f"*{_UNFINISHED}"):
        path.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _root_cause(error: BaseException) -> BaseException:
    """The full disk behind what PyTorch made of it, where there is one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return cause
        cause = cause.__cause__ or cause.__context__
    return error
