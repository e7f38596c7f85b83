"""What conf/ asks of the command that composes it: names of folders, the time it began, where it computes."""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf


class CommandStart(metaclass=Singleton):
    """When the command started, by the clock of the process that the user started.

    Hydra's launchers take its singletons to the processes of their jobs, also of a job that is requeued.
    """

    def __init__(self) -> None:
        self.seconds = time.time()


# Now, and not when it is first asked for.
CommandStart()


MULTIRUN_VARIABLE = "PAPO_MULTIRUN"
"""Names the multirun to the processes that one of its jobs starts."""


def experiment_name() -> str:
    """The chosen experiment, or `lab` where none was."""
    if not HydraConfig.initialized():
        return "lab"
    return str(HydraConfig.get().runtime.choices.get("experiment") or "lab")


def multirun_name() -> str | None:
    """The name of the folder that the jobs of a multirun share; None for a single run."""
    if not HydraConfig.initialized() or HydraConfig.get().mode is not RunMode.MULTIRUN:
        return os.environ.get(MULTIRUN_VARIABLE)
    return Path(HydraConfig.get().sweep.dir).name


def start_time(form: str) -> str:
    """The time at which the command started, the same on all ranks and in all jobs, as strftime writes it."""
    return time.strftime(form, time.localtime(CommandStart().seconds))


def was_requeued() -> bool:
    """Whether SLURM has started this job before: what it began then, it continues."""
    return os.environ.get("SLURM_RESTART_COUNT", "0") != "0"


def by_device(on_gpu: Any, on_cpu: Any, *, _root_: DictConfig) -> Any:
    """One of two values, by where the run computes (trainer.accelerator)."""
    trainer = _root_.get("trainer")
    # While it is composed, what another choice writes over is looked at once more: that needs no torch.
    if trainer is None or (asked := trainer.get("accelerator", "auto")) == "cpu":
        return on_cpu
    from papo.parallel import asks_for_gpu

    return on_gpu if asks_for_gpu(asked) else on_cpu


def lab_warm_start() -> str:
    """The folder of the lab's starting policy: papo.lab.WARM_START, without importing torch with it."""
    return str(Path(__file__).resolve().parents[1] / "lab" / "warm_start")


_new_folders: set[Path] = set()
"""What was not there before Hydra made it for this command."""


def makeable_folder(folder: str) -> str:
    """The folder; ends the command with one line where it is not there and cannot be made.

    Hydra makes it before anything of this project is asked, and would show a traceback.
    """
    path = Path(folder).absolute()
    missing = [one for one in (path, *path.parents) if not one.exists()]
    if missing:
        there = missing[-1].parent
        if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
            reason = "cannot be written to" if there.is_dir() else "is no folder"
            print(f"error: {path} cannot be made: {there} {reason}. Set run_dir=", file=sys.stderr)
            raise SystemExit(1)
        _new_folders.update(missing)
    return folder


def remove_empty_folders() -> None:
    """Takes back the folders that Hydra made for this command, where nothing came to be in them."""
    for folder in sorted(_new_folders, reverse=True):
        with suppress(OSError):
            folder.rmdir()
    _new_folders.clear()


OmegaConf.register_new_resolver("by_device", by_device, replace=True)


OmegaConf.register_new_resolver("makeable_folder", makeable_folder, replace=True)


OmegaConf.register_new_resolver("start_time", start_time, replace=True)


OmegaConf.register_new_resolver("was_requeued", was_requeued, replace=True)


OmegaConf.register_new_resolver("multirun_name", multirun_name, replace=True)


OmegaConf.register_new_resolver("experiment_name", experiment_name, replace=True)


OmegaConf.register_new_resolver("lab_warm_start", lab_warm_start, replace=True)
