"""Lightning's Trainer, set up for rollouts and told what of its advice does not apply."""

import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

from papo.training.callbacks import RecordMetrics
from papo.training.checkpoints import AtomicCheckpointIO
from papo.training.papo import PAPOModule

# The model stays in evaluation mode on purpose (papo.models.policy: it has no dropout, and training
# mode drops the cache), torch 2.13 deprecates a name that Lightning 2.6 uses, and a run that was killed after
# its last rollout has none left.
_IGNORED_WARNINGS = (
    ".*in eval mode at the start of training",
    ".*LeafSpec",
    "Total length of .* across ranks is zero",
)


def build_trainer(
    make_trainer: Callable[..., Trainer],
    *,
    folder: Path,
    callbacks: Sequence[Callback],
    loggers: Sequence[Any],
) -> Trainer:
    """Returns a Trainer whose one epoch is the run, with all its files below `folder`."""
    # Lightning announces devices and products; the run says what matters itself.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    return make_trainer(
        logger=list(loggers),
        # Last: its row of W&B holds what the others have logged of the rollout.
        callbacks=[*callbacks, RecordMetrics()],
        plugins=[AtomicCheckpointIO()],
        default_root_dir=str(folder),
        max_epochs=1,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def fit(trainer: Trainer, module: PAPOModule, checkpoint: Path | None) -> None:
    """Trains from the checkpoint, or from the start, to the last rollout."""
    with warnings.catch_warnings():
        for message in _IGNORED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        trainer.fit(module, ckpt_path=checkpoint)
