"""Training: collect rollouts (act, judge, look again), update the policy, keep the run's files.

Not here: the objective (papo.objective), sampling (papo.rollout), anything that knows Hydra.
"""

from papo.training.base_weights import load_trained_policy
from papo.training.best import BEST, read_best
from papo.training.callbacks import EvaluateAtEnd, Validation
from papo.training.checkpoint_folder import is_checkpoint_folder
from papo.training.checkpoints import (
    RolloutCheckpoint,
    best_checkpoint,
    check_checkpoint,
    newest_checkpoint,
    read_checkpoint,
)
from papo.training.collect import Collector
from papo.training.data_fingerprint import DataFingerprint, ProblemHashes
from papo.training.fit import build_trainer, check_trainer_keys, fit
from papo.training.held_out import HeldOut, HeldOutEvaluations, HoldsOut, validation_names
from papo.training.loggers import finish_loggers, log_evaluation, wandb_logger
from papo.training.memory import (
    checkpoint_bytes,
    estimate_memory,
    largest_pass,
    longest_prompt,
    readable_bytes,
)
from papo.training.microbatches import trim
from papo.training.module import FinishedStep, TrainingModule
from papo.training.offload import NoOffload, Offload, check_offload
from papo.training.policy import PolicyModule, check_weight_decay_of, try_optimizer
from papo.training.precision import check_updates_arrive
from papo.training.prompts import PromptStream
from papo.training.reference import ReferenceModule
from papo.training.room import RunMemory, available_bytes, check_room, recomputes
from papo.training.run_folder import LENGTH_KEY, PROCESS_KEYS, RunFolder, Start
from papo.training.sampling import check_sampled_from
from papo.training.schedule import LearningRateSchedule
from papo.training.settings import (
    TrainingSettings,
    check_group_size,
    check_seed,
    check_share,
    check_strategy,
    check_threads,
    training_settings,
)
from papo.training.validation_settings import (
    HeldOutSettings,
    ValidationSettings,
    check_monitor,
    held_out_settings,
    validation_settings,
)

__all__ = [
    "BEST",
    "LENGTH_KEY",
    "PROCESS_KEYS",
    "Collector",
    "DataFingerprint",
    "EvaluateAtEnd",
    "FinishedStep",
    "HeldOut",
    "HeldOutEvaluations",
    "HeldOutSettings",
    "HoldsOut",
    "LearningRateSchedule",
    "NoOffload",
    "Offload",
    "PolicyModule",
    "ProblemHashes",
    "PromptStream",
    "ReferenceModule",
    "RolloutCheckpoint",
    "RunFolder",
    "RunMemory",
    "Start",
    "TrainingModule",
    "TrainingSettings",
    "Validation",
    "ValidationSettings",
    "available_bytes",
    "best_checkpoint",
    "build_trainer",
    "check_checkpoint",
    "check_group_size",
    "check_monitor",
    "check_offload",
    "check_room",
    "check_sampled_from",
    "check_seed",
    "check_share",
    "check_strategy",
    "check_threads",
    "check_trainer_keys",
    "check_updates_arrive",
    "check_weight_decay_of",
    "checkpoint_bytes",
    "estimate_memory",
    "finish_loggers",
    "fit",
    "held_out_settings",
    "is_checkpoint_folder",
    "largest_pass",
    "load_trained_policy",
    "log_evaluation",
    "longest_prompt",
    "newest_checkpoint",
    "read_best",
    "read_checkpoint",
    "readable_bytes",
    "recomputes",
    "training_settings",
    "trim",
    "try_optimizer",
    "validation_names",
    "validation_settings",
    "wandb_logger",
]
