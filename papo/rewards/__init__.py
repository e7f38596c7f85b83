"""Answer extraction, grading in killable worker processes, the format rule, and their weighting.

`MathReward`, `AnswerGrader` and `PartlyLabelled` are loaded on first use: a grading worker imports this package too,
and must start without paying for torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from papo.rewards.answer_grader import AnswerGrader
    from papo.rewards.grading_pool import GradingPool, Verdict
    from papo.rewards.math_reward import MathReward
    from papo.rewards.partly_labelled import PartlyLabelled

__all__ = ["AnswerGrader", "GradingPool", "MathReward", "PartlyLabelled", "Verdict"]


def __getattr__(name: str) -> Any:
    if name == "AnswerGrader":
        from papo.rewards.answer_grader import AnswerGrader

        return AnswerGrader
    if name == "MathReward":
        from papo.rewards.math_reward import MathReward

        return MathReward
    if name == "PartlyLabelled":
        from papo.rewards.partly_labelled import PartlyLabelled

        return PartlyLabelled
    if name in ("GradingPool", "Verdict"):
        from papo.rewards import grading_pool

        return getattr(grading_pool, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
