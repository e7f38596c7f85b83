"""The words of the project: frozen dataclasses and Protocols; torch and the standard library."""

from papo.types.problem import IMAGE_MARKER, Problem, PromptGroup, View
from papo.types.protocols import (
    ImageMask,
    Objective,
    Policy,
    ProblemSource,
    RewardFunction,
    RolloutEngine,
)
from papo.types.rollout import Responses, Rewards, RolloutBatch, TokenScores
from papo.types.seed import derive_seed

__all__ = [
    "IMAGE_MARKER",
    "ImageMask",
    "Objective",
    "Policy",
    "Problem",
    "ProblemSource",
    "PromptGroup",
    "Responses",
    "RewardFunction",
    "Rewards",
    "RolloutBatch",
    "RolloutEngine",
    "TokenScores",
    "View",
    "derive_seed",
]
