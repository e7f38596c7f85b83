"""The words of the project: frozen dataclasses and Protocols; torch and the standard library."""

from papo.types.message import key_in, shown
from papo.types.problem import IMAGE, IMAGE_MARKER, Problem, PromptGroup
from papo.types.protocols import (
    AnnealedMask,
    Grader,
    ImageMask,
    Objective,
    Policy,
    ProblemSource,
    RewardFunction,
    RolloutEngine,
)
from papo.types.records import GradedAnswer, ResponseRecord, StopReason
from papo.types.rollout import (
    Begun,
    MinibatchCounts,
    Needs,
    Quantity,
    Responses,
    Rewards,
    RolloutBatch,
    TokenScores,
    ViewScores,
)
from papo.types.seed import derive_seed, derive_seeds

__all__ = [
    "IMAGE",
    "IMAGE_MARKER",
    "AnnealedMask",
    "Begun",
    "GradedAnswer",
    "Grader",
    "ImageMask",
    "MinibatchCounts",
    "Needs",
    "Objective",
    "Policy",
    "Problem",
    "ProblemSource",
    "PromptGroup",
    "Quantity",
    "ResponseRecord",
    "Responses",
    "RewardFunction",
    "Rewards",
    "RolloutBatch",
    "RolloutEngine",
    "StopReason",
    "TokenScores",
    "ViewScores",
    "derive_seed",
    "derive_seeds",
    "key_in",
    "shown",
]
