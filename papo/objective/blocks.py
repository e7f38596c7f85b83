"""Which responses of a rollout a statistic is taken over; never those of a pass."""

from dataclasses import dataclass
from typing import Literal, get_args

from papo.objective.errors import SettingError

Scope = Literal["response", "group", "minibatch", "rollout"]
SCOPES: tuple[Scope, ...] = get_args(Scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """Which responses a statistic is taken over, by its scope.

    Attributes:
        num_rollouts: responses of the rollout, on all ranks.
        num_responses: G; the responses to a prompt are contiguous.
        rollouts_per_minibatch: responses that one optimiser step reads; the last step may have fewer.
    """

    num_rollouts: int
    num_responses: int
    rollouts_per_minibatch: int

    def rows(self, scope: str) -> tuple[slice, ...]:
        """Returns the rows of each block, which together are all rows, in order.

        Raises:
            SettingError: there is no such scope.
        """
        sizes = {
            "response": 1,
            "group": self.num_responses,
            "minibatch": self.rollouts_per_minibatch,
            "rollout": self.num_rollouts,
        }
        check_scope(scope)
        size = sizes[scope]
        return tuple(
            slice(start, min(start + size, self.num_rollouts))
            for start in range(0, self.num_rollouts, size)
        )


def check_scope(scope: str, *, name: str = "scope") -> None:
    """Raises SettingError where a statistic cannot be taken over what the setting `name` says."""
    if scope not in SCOPES:
        raise SettingError(f"{{{name}}} must be one of {', '.join(SCOPES)}; got {scope!r}")
