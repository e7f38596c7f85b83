"""Lightning's Trainer, set up for rollouts and told what of its advice does not apply."""

import logging
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from papo.machine.signals import postponed_until_saved
from papo.parallel import NoSharding, Ranks, Sharding
from papo.training.callbacks import RecordMetrics, Safeguard, Validation
from papo.training.checkpoints import AtomicCheckpointIO, RolloutCheckpoint
from papo.training.held_out import PREFIX
from papo.training.module import TrainingModule
from papo.training.strategy import strategy_for

# The model stays in evaluation mode on purpose (papo.models.policy_weights: it has no dropout, and training
# mode drops the cache), torch 2.13 deprecates a name that Lightning 2.6 uses, and a resumed run's folder is
# never empty.
_IGNORED_WARNINGS = (
    ".*in eval mode at the start of training",
    ".*LeafSpec",
    "Checkpoint directory .* exists and is not empty",
)


_TRAINER_KEYS = {
    *("accelerator", "devices", "num_nodes", "precision", "strategy", "shard_size"),
    "offload_while_sampling",
    *("deterministic", "benchmark", "detect_anomaly", "profiler"),
}
_INSTEAD = {
    "training.num_rollouts": ("max_epochs", "min_epochs", "max_steps", "min_steps", "fast_dev_run"),
    "training.prompts_per_microbatch": ("accumulate_grad_batches",),
    "training.max_grad_norm": ("gradient_clip_val", "gradient_clip_algorithm"),
    "logger": ("logger", "log_every_n_steps"),
    "callbacks": ("callbacks", "enable_checkpointing", "enable_progress_bar"),
    "run_dir": ("default_root_dir",),
}


def check_trainer_keys(names: Iterable[str]) -> None:
    """Refuses settings of Lightning's Trainer that the run sets itself, or that nothing of it reads.

    Args:
        names: keys of the section `trainer` of the configuration.

    Raises:
        ValueError: names the key and what to set instead.
    """
    for name in names:
        if name in _TRAINER_KEYS or name.startswith("_"):
            continue
        instead = [key for key, names in _INSTEAD.items() if name in names]
        raise ValueError(
            f"trainer.{name} is not a run's to set: "
            + (f"set {instead[0]}" if instead else f"known are {', '.join(sorted(_TRAINER_KEYS))}")
        )


def check_callbacks(callbacks: Sequence[Callback]) -> None:
    """Refuses callbacks that would do nothing: Lightning's own validation never runs.

    Raises:
        ValueError: names the callback and what to set instead.
    """
    for callback in callbacks:
        name, monitor = type(callback).__name__, getattr(callback, "monitor", None)
        if isinstance(callback, ModelCheckpoint | EarlyStopping) and str(monitor).startswith(
            PREFIX
        ):
            instead = "keep_best" if isinstance(callback, ModelCheckpoint) else "patience"
            raise ValueError(
                f"{name} looks after every rollout, and {monitor} is measured after some of them. Set "
                f"validation.{instead} and validation.monitor={monitor} instead."
            )
        waits = {
            "save_on_train_epoch_end": isinstance(callback, ModelCheckpoint)
            and callback._save_on_train_epoch_end is False,
            "check_on_train_epoch_end": isinstance(callback, EarlyStopping)
            and callback._check_on_train_epoch_end is False,
        }
        for setting in (key for key, is_so in waits.items() if is_so):
            raise ValueError(
                f"{name} with {setting}=false waits for a validation of Lightning's, and a run has none: it would do "
                f"nothing. Leave callbacks.*.{setting} out, or set validation.every_rollouts."
            )
    has_checkpoints = any(isinstance(one, RolloutCheckpoint) for one in callbacks)
    if not has_checkpoints and any(
        isinstance(one, Safeguard) and one.needs_checkpoints for one in callbacks
    ):
        raise ValueError(
            "safeguard=act goes back to what callbacks.checkpoint saves, and this run has none. Leave "
            "~callbacks.checkpoint out, or set safeguard=off, or safeguard.rollbacks.max_rollbacks=0."
        )
    keeps_best = any(isinstance(one, Validation) and one.settings.keep_best for one in callbacks)
    if keeps_best and not has_checkpoints:
        raise ValueError(
            "the best checkpoint is kept by callbacks.checkpoint, and this run has none. Leave ~callbacks.checkpoint "
            "out, or set validation.keep_best=false."
        )


def build_trainer(
    make_trainer: Callable[..., Trainer],
    *,
    folder: Path,
    callbacks: Sequence[Callback],
    loggers: Sequence[Any],
    ranks: Ranks,
    device: torch.device,
    sharding: Sharding | NoSharding | None = None,
) -> Trainer:
    """Returns a Trainer whose epochs are rollouts, with all its files below `folder`."""
    # Lightning reads the rank from the variables of launchers.
    rank_zero_only.rank = ranks.rank  # type: ignore[attr-defined]
    several: dict[str, Any] = {}
    if ranks.size > 1:
        several["strategy"] = strategy_for(ranks, device, sharding or NoSharding())
    if isinstance(sharding, Sharding):
        # Shards are cast where they are put together.
        several["precision"] = "32-true"
    # Lightning announces devices and products; the run says what matters itself.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    check_callbacks(callbacks)
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
            # Lightning would choose a folder of the first logger's, from which nothing can be evaluated.
            callback.dirpath = str(folder / "checkpoints")
    return make_trainer(
        **several,
        # Of this process: Lightning starts no others.
        devices=1,
        num_nodes=1,
        # A callback that logs refuses a trainer without loggers; those of the run are rank 0's.
        logger=list(loggers) if ranks.writes else [DummyLogger()],
        # RecordMetrics comes last: its row of W&B holds what the others have logged of the rollout. Lightning
        # moves what saves behind it, where the state to resume from is last: it holds that of the others.
        callbacks=[
            *sorted(callbacks, key=lambda callback: isinstance(callback, RolloutCheckpoint)),
            RecordMetrics(),
        ],
        # Lightning starts no processes, whatever the variables of a scheduler say: no handlers of its own for signals.
        plugins=[AtomicCheckpointIO(), LightningEnvironment()],
        default_root_dir=str(folder),
        max_epochs=-1,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def fit(trainer: Trainer, module: TrainingModule, checkpoint: Path | None) -> str | None:
    """Trains from the checkpoint, or from the start, to the last rollout.

    Returns:
        Why training ended before its last rollout, by a rule of a callback; None where it did not.

    Raises:
        ValueError: a callback does not fit the run.
    """
    trainer.fit_loop.max_epochs = module.num_rollouts
    with warnings.catch_warnings(), ExitStack() as stack:
        # However it ends: nothing may still read ahead.
        stack.callback(module.collector.close)
        for message in _IGNORED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        if any(isinstance(one, RolloutCheckpoint) for one in trainer.checkpoint_callbacks):
            stack.enter_context(postponed_until_saved())
        try:
            trainer.fit(module, ckpt_path=checkpoint)
        except MisconfigurationException as error:
            raise ValueError(
                f"Lightning refuses a setting of trainer or callbacks: {' '.join(str(error).split())}"
            ) from error
    if module.rollout_step == module.num_rollouts:
        return None
    rules = [f"EarlyStopping on {one.monitor}" for one in trainer.early_stopping_callbacks]
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    rules += [one.rule for one in callbacks if isinstance(one, Validation | Safeguard) and one.rule]
    return (
        f"{' or '.join(rules) or 'a callback'} ended training after rollout {module.rollout_step} of "
        f"{module.num_rollouts}"
    )
