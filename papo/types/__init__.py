"""The words of the project: frozen dataclasses and Protocols; torch and the standard library.

Those that hold tensors are imported when the first of them is asked for: a page of responses needs no torch.
"""

from typing import TYPE_CHECKING, Any

from papo.types.message import key_in, shown
from papo.types.records import GradedAnswer, ResponseRecord, StopReason
from papo.types.seed import derive_seed, derive_seeds

if TYPE_CHECKING:
    from papo.types.picture import PictureLayout
    from papo.types.problem import IMAGE, IMAGE_MARKER, Problem, PromptGroup
    from papo.types.protocols import (
        AnnealedMask,
        Grader,
        ImageMask,
        Objective,
        Policy,
        ProblemSource,
        ProcessImages,
        RewardFunction,
        RolloutEngine,
    )
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
    "PictureLayout",
    "Policy",
    "Problem",
    "ProblemSource",
    "ProcessImages",
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


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from papo.types import problem, protocols, rollout

    for module in (problem, protocols, rollout):
        if name in module.__dict__:
            return module.__dict__[name]
    raise AssertionError(f"{name} is in none of its modules")
