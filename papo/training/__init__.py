"""Training: collect rollouts (act, judge, look again), update the policy, keep the run's files.

Not here: the objective (papo.objective), sampling (papo.rollout), anything that knows Hydra.
"""

from papo.training.callbacks import PhaseProgress, RecordMetrics, RolloutTable
from papo.training.checkpoints import AtomicCheckpointIO, RolloutCheckpoint, checkpoint_path
from papo.training.collect import Collector, Rollout, cut
from papo.training.failures import CheckpointNotWritten, NonFiniteLoss
from papo.training.loggers import finish_loggers, wandb_logger
from papo.training.papo import FinishedStep, PAPOModule
from papo.training.policy import PolicyModule
from papo.training.prompts import PromptStream
from papo.training.reference import ReferenceModule
from papo.training.run_folder import RunFolder
from papo.training.settings import (
    TrainingSettings,
    check_group_size,
    check_seed,
    training_settings,
)

__all__ = [
    "AtomicCheckpointIO",
    "CheckpointNotWritten",
    "Collector",
    "FinishedStep",
    "NonFiniteLoss",
    "PAPOModule",
    "PhaseProgress",
    "PolicyModule",
    "PromptStream",
    "RecordMetrics",
    "ReferenceModule",
    "Rollout",
    "RolloutCheckpoint",
    "RolloutTable",
    "RunFolder",
    "TrainingSettings",
    "check_group_size",
    "check_seed",
    "checkpoint_path",
    "cut",
    "finish_loggers",
    "training_settings",
    "wandb_logger",
]
