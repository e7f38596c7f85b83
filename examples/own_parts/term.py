"""A term of one's own: one number per token, which is lowered or raised with its weight."""

from dataclasses import dataclass

from papo.objective import SettingError, Term
from papo.types import IMAGE, Needs


@dataclass(kw_only=True, eq=False)
class StaysNear(Term):
    """(log pi - log pi_old)^2 beyond a tolerance.

    Args:
        tolerance: nats.
    """

    tolerance: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if self.tolerance < 0:
            raise SettingError(f"{{tolerance}} is 0 or positive; got {self.tolerance}")

    @property
    def needs(self):
        return Needs()

    def __call__(self, batch, scores):
        moved = (scores[IMAGE].logprobs - batch.old_logprobs).abs() - self.tolerance
        return moved.clamp(min=0).square()
