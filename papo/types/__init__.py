"""The words of the project: frozen dataclasses and Protocols; torch and the standard library."""

from papo.types.message import key_in, shown
from papo.types.problem import IMAGE_MARKER, Problem, PromptGroup, View
from papo.types.protocols import (
    Grader,
    ImageMask,
    Objective,
    Policy,
    ProblemSource,
    RewardFunction,
    RolloutEngine,
)
from papo.types.records import GradedAnswer, ResponseRecord, StopReason
from papo.types.rollout import MinibatchCounts, Responses, Rewards, RolloutBatch, TokenScores
from papo.types.seed import derive_seed, derive_seeds

__all__ = [
    "IMAGE_MARKER",
    "GradedAnswer",
    "Grader",
    "ImageMask",
    "MinibatchCounts",
    "Objective",
    "Policy",
    "Problem",
    "ProblemSource",
    "PromptGroup",
    "ResponseRecord",
    "Responses",
    "RewardFunction",
    "Rewards",
    "RolloutBatch",
    "RolloutEngine",
    "StopReason",
    "TokenScores",
    "View",
    "derive_seed",
    "derive_seeds",
    "key_in",
    "shown",
]
