"""Checkpoints: written at rollout boundaries, whole or not at all, the newest few kept."""

import errno
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import CheckpointIO
from safetensors import SafetensorError

from papo.machine.signals import received_signal, stop
from papo.parallel import Ranks
from papo.training.best import Best, read_best, write_best
from papo.training.checkpoint_folder import (
    Place,
    folder_damage,
    placed,
    placed_whole,
    read_folder,
    remove,
    write_folder,
)
from papo.training.failures import CheckpointNotWritten
from papo.training.memory import readable_bytes

_NAME = re.compile(r"rollout_(\d{6})\.ckpt")
_UNFINISHED = ".unfinished"


def checkpoint_path(folder: Path, rollout_step: int) -> Path:
    """Where the state after `rollout_step` rollouts is kept."""
    return folder / f"rollout_{rollout_step:06d}.ckpt"


def checkpoints(folder: Path) -> dict[int, Path]:
    """Finished checkpoints by the number of rollouts they follow, in ascending order."""
    found = ((_NAME.fullmatch(path.name), path) for path in folder.glob("*.ckpt"))
    return dict(sorted((int(match.group(1)), path) for match, path in found if match))


def rollouts_before(checkpoint: Path) -> int:
    """How many rollouts a checkpoint follows."""
    match = _NAME.fullmatch(checkpoint.name)
    assert match, "a checkpoint of a run is named by its rollouts"
    return int(match.group(1))


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of a folder, or None before the first; it may have been damaged since."""
    found = checkpoints(folder)
    return found[max(found)] if found else None


def best_checkpoint(folder: Path) -> Path:
    """Returns the checkpoint of a run that was best on held-out problems.

    Raises:
        FileNotFoundError: the run was not validated while it trained, or the checkpoint is gone.
    """
    best = read_best(folder)
    if best is None:
        raise FileNotFoundError(
            f"{folder} has no best checkpoint: the run was not validated while it trained. Train with "
            "validation.every_rollouts=N, or name the run itself for its newest checkpoint."
        )
    path = checkpoint_path(folder / "checkpoints", best.rollout_step)
    if not path.exists():
        raise FileNotFoundError(
            f"the best checkpoint of {folder} is {path.name}, and it is not there any more. Restore it, or name "
            "the run itself for its newest checkpoint."
        )
    return path


class DamagedCheckpoint(ValueError):
    """A checkpoint does not hold what was written.

    Args:
        path: of the checkpoint.
        reason: what is wrong with it.
    """

    def __init__(self, *, path: Path, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path} is damaged: {reason}")


def require_whole(path: Path) -> None:
    """Reads a checkpoint once, in pieces, and compares every part of it with its checksum.

    A flipped bit would else be trained on or evaluated: loading does not compare.

    Raises:
        DamagedCheckpoint: it is empty, cut short, no checkpoint at all, or a part was changed.
    """
    if path.is_dir():
        if (reason := folder_damage(path)) is not None:
            raise DamagedCheckpoint(path=path, reason=reason)
        return
    if path.stat().st_size == 0:
        raise DamagedCheckpoint(path=path, reason="it is empty")
    try:
        with zipfile.ZipFile(path) as archive:
            changed = archive.testzip()
        if changed is None:
            # Its table of contents too; mapped, so that no tensor is read again.
            torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:  # Hostile bytes raise more than BadZipFile.
        raise DamagedCheckpoint(
            path=path, reason=f"it is cut short, or was changed ({_first_sentence(error)})"
        ) from error
    if changed is not None:
        raise DamagedCheckpoint(
            path=path, reason=f"{changed} in it does not have the checksum it was written with"
        )


def newest_whole_checkpoint(folder: Path) -> tuple[Path | None, list[DamagedCheckpoint]]:
    """Returns the newest checkpoint that is whole, or None, and what is wrong with those after it."""
    damaged: list[DamagedCheckpoint] = []
    for path in reversed(checkpoints(folder).values()):
        try:
            require_whole(path)
            return path, damaged
        except DamagedCheckpoint as error:
            damaged.append(error)
    return None, damaged


def check_checkpoint(path: Path) -> None:
    """Refuses a damaged checkpoint of a run, and names the one to use instead.

    Raises:
        ValueError: it is damaged.
    """
    try:
        require_whole(path)
    except DamagedCheckpoint as error:
        earlier = [other for other in checkpoints(path.parent).values() if other.name < path.name]
        for other in reversed(earlier):
            with suppress(DamagedCheckpoint):
                require_whole(other)
                raise ValueError(f"{error}. The newest whole one before it is {other}") from error
        raise ValueError(
            f"{error}. No whole one lies before it; restore it, or let the run write another."
        ) from error


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
            if path.is_dir():
                remove(path)
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
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        remove(Path(path))


def read_checkpoint(
    path: Path, place: Place = placed_whole, *, only: tuple[str, ...] | None = None
) -> dict[str, Any]:
    """Returns what a checkpoint holds, of one process or of several.

    Args:
        path: a file or a folder.
        place: what to make of the tensors of weights and optimiser.
        only: which of these two are read (`state_dict`, `optimizer_states`); None: both.
    """
    if path.is_dir():
        return read_folder(path, place, only=only)
    # Mapped, not read: what is not asked for stays on the disk.
    is_mapped = place is not placed_whole or only is not None
    loaded: dict[str, Any] = torch.load(path, map_location="cpu", mmap=is_mapped, weights_only=True)
    return loaded if place is placed_whole else placed(loaded, place, only=only)


def write_checkpoint_folder(
    path: Path, checkpoint: dict[str, Any], *, ranks: Ranks, holds_first_copy: bool
) -> None:
    """Writes a checkpoint of several ranks, whole or not at all; all ranks call it.

    Args:
        path: its place, the same on all ranks.
        checkpoint: this rank's.
        ranks: the processes of the run.
        holds_first_copy: as of `write_folder`.

    Raises:
        CheckpointNotWritten: the disk is full, say; on the rank that could not.
    """
    unfinished = path.with_name(path.name + _UNFINISHED)
    try:
        if ranks.writes:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
        ranks.wait_for_all()
        write_folder(unfinished, checkpoint, ranks=ranks, holds_first_copy=holds_first_copy)
        if ranks.writes:
            _sync_folder(unfinished)
            # Only what Lightning's callbacks save again has a place that is taken.
            remove(path)
            os.replace(unfinished, path)
            _sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        raise CheckpointNotWritten(path=path, reason=_root_cause(error)) from error
    ranks.wait_for_all()


class RolloutCheckpoint(Checkpoint):
    """Saves after every n-th rollout, after the last one and before a requested end; keeps the newest few.

    Args:
        every_rollouts: n.
        keep_last: how many checkpoints stay.

    Attributes:
        best: whose checkpoint is saved and stays too; None: nobody has said so.
        wanted: whether this rollout's is saved out of turn; whoever changed the run's course says so.

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
        self.best: Best | None = None
        self.wanted = False

    def require_room(self, folder: Path, size: int, *, keeps_best: bool = False) -> None:
        """Refuses a disk that would be full before the run has its last checkpoint.

        Args:
            folder: of the checkpoints; it need not be there yet.
            size: of one, in bytes.
            keeps_best: whether the best one stays beside the newest.

        Raises:
            ValueError: the newest ones and the next have no room side by side.
        """
        there = next(one for one in (folder, *folder.parents) if one.exists())
        free, most = shutil.disk_usage(there).free, self.keep_last + 1 + keeps_best
        missing = most - len(checkpoints(folder))
        if missing * size > free:
            raise ValueError(
                f"{missing} checkpoints of {readable_bytes(size)} lie side by side for a moment (callbacks.checkpoint."
                f"keep_last={self.keep_last}{', the best' if keeps_best else ''} and the next), and the disk of {there} has {readable_bytes(free)} left. "
                "Lower keep_last, or set run_dir= to a larger disk."
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module: Any = pl_module
        # A signal to one rank ends all, after the same rollout.
        signals = [n for n in module.collector.ranks.gather(received_signal()) if n is not None]
        step, asked = module.rollout_step, bool(signals)
        is_last = step == module.num_rollouts or trainer.should_stop
        is_best = self.best is not None and self.best.rollout_step == step
        out_of_turn = is_last or asked or is_best or self.wanted
        if step % self.every_rollouts and not out_of_turn:
            return
        self.wanted = False
        folder = Path(trainer.default_root_dir) / "checkpoints"
        trainer.save_checkpoint(checkpoint_path(folder, step))
        # Older ones go only after the newest is safely in place.
        if trainer.is_global_zero:
            if self.best is not None:
                write_best(folder.parent, self.best)
            for number, path in list(checkpoints(folder).items())[: -self.keep_last]:
                if self.best is None or number != self.best.rollout_step:
                    remove(path)
        if asked:
            stop(signals[0])

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["ended_early"] = trainer.should_stop

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # A rule that ended the run, which was killed before it could say so, is not asked twice.
        trainer.should_stop = checkpoint.get("ended_early", False)


def put_aside(checkpoint: Path) -> Path:
    """Renames a damaged checkpoint, so that nothing takes it for a whole one; returns where it is."""
    aside = checkpoint.with_name(checkpoint.name + ".damaged")
    while aside.exists():
        aside = aside.with_name(aside.name + "_too")
    return checkpoint.rename(aside)


def remove_unfinished(folder: Path) -> None:
    """Deletes what a killed run left half-written."""
    for path in folder.glob(f"*{_UNFINISHED}"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _first_sentence(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text.splitlines()[0].split(". ")[0][:200]


def _root_cause(error: BaseException) -> BaseException:
    """The full disk behind what PyTorch made of it, where there is one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return cause
        cause = cause.__cause__ or cause.__context__
    return error
