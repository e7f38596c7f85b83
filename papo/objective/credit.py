"""A credit: how the advantage of a response is divided among its tokens.

Computed once per rollout, over the responses of all ranks, from what the rollout policy says: no statistic of
it can depend on how an update is cut into passes.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch

from papo.objective.errors import SettingError
from papo.objective.term import TokenValues, look
from papo.types import Needs, Quantity, RolloutBatch

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


@dataclass(kw_only=True, eq=False)
class Credit(ABC):
    """Divides advantages among tokens. A credit of your own derives from this: `needs` and `__call__`."""

    @property
    @abstractmethod
    def needs(self) -> Needs:
        """What the rollout policy must be asked; nothing of the policy that is updated (`Needs.now`)."""

    @abstractmethod
    def __call__(self, batch: RolloutBatch, blocks: Blocks, *, progress: float) -> TokenValues:
        """Returns the advantage of every token; what stands at padding is not read.

        Args:
            batch: the whole rollout; constant, without its prompts.
            blocks: the rows that a statistic is taken over.
            progress: share of the run that is done, 0 to 1.
        """

    @property
    def depends_on_progress(self) -> bool:
        """Whether it changes over the run."""
        return False

    @property
    def weighs(self) -> bool:
        """Whether it means to weigh the tokens that it lets keep an advantage: then a run is told where it does not."""
        return False

    def check_group(self, sampled: Mapping[str, int]) -> None:  # noqa: B027 - most credits suit any group
        """Raises SettingError where groups that are sampled so do not suit it; asked before a model is loaded.

        Args:
            sampled: responses to a prompt, by the view that they are sampled from, in their order; `image` first.
        """

    def check_share(self, *names: str) -> None:
        """Raises SettingError where a setting is no share, above 0 to 1; None passes, it switches one off."""
        for name in names:
            value = getattr(self, name)
            if value is not None and not 0.0 < value <= 1.0:
                raise SettingError(f"{{{name}}} is a share, above 0 and at most 1; got {value}")

    def check_number(
        self, *names: str, least: float = 0.0, most: float = sys.float_info.max
    ) -> None:
        """Raises SettingError where a setting is below `least`, above `most`, or not finite."""
        for name in names:
            if not least <= (value := getattr(self, name)) <= most:
                upper = "" if most == sys.float_info.max else f" and at most {most:g}"
                raise SettingError(f"{{{name}}} is at least {least:g}{upper}; got {value}")

    def check_choice(self, name: str, *allowed: str) -> None:
        """Raises SettingError where a setting is none of the words."""
        if (value := getattr(self, name)) not in allowed:
            raise SettingError(f"{{{name}}} must be one of {', '.join(allowed)}; got {value!r}")

    def check_scopes(self, *names: str) -> None:
        """Raises SettingError where a setting is no scope."""
        for name in names:
            check_scope(getattr(self, name), name=name)


def old_needs(*wanted: tuple[str, Quantity]) -> Needs:
    """What `old` reads: of each view, a quantity under the rollout policy."""
    return Needs(old=frozenset(wanted))


def old(batch: RolloutBatch, view: str, quantity: Quantity = "logprobs") -> TokenValues:
    """What the rollout policy says of the tokens given a view; `image` is the unchanged prompt."""
    return look(batch, {}, view, "old", quantity)


def check_scope(scope: str, *, name: str = "scope") -> None:
    """Raises SettingError where a statistic cannot be taken over what the setting `name` says."""
    if scope not in SCOPES:
        raise SettingError(f"{{{name}}} must be one of {', '.join(SCOPES)}; got {scope!r}")


def check_credit(name: str, credit: Credit) -> None:
    """Raises SettingError where a credit asks for what changes within a rollout."""
    if credit.needs.now:
        view, quantity = sorted(credit.needs.now)[0]
        raise SettingError(
            f"a credit is computed once per rollout, from what the rollout policy says; got {name!r}, which needs "
            f"the updated policy's {quantity} given {view!r}. Name it in Needs(old=...), or write a term."
        )


def assign_credit(
    credits: Mapping[str, Credit], batch: RolloutBatch, blocks: Blocks, *, progress: float
) -> RolloutBatch:
    """Returns the rollout with the advantages that the credits leave, each applied to what the one before left.

    Args:
        credits: by name, in their order.
        batch: the whole rollout.
        blocks: of it.
        progress: share of the run that is done, 0 to 1.

    Raises:
        ValueError: a credit returned something else than one finite number per token.
    """
    for name, credit in credits.items():
        with torch.no_grad():
            advantages = credit(batch, blocks, progress=progress)
        if advantages.shape != batch.response_mask.shape:
            raise ValueError(
                f"a credit returns one advantage per token, {tuple(batch.response_mask.shape)}; got "
                f"{tuple(advantages.shape)} from {name!r} (objective.credits.{name})"
            )
        advantages = advantages.detach().where(batch.response_mask, 0.0)
        if not bool(torch.isfinite(advantages).all()):
            raise ValueError(
                f"a credit returns finite advantages; got NaN or infinity from {name!r} "
                f"(objective.credits.{name})"
            )
        batch = replace(batch, advantages=advantages.to(batch.advantages.dtype))
    return batch


def credit_metrics(before: RolloutBatch, after: RolloutBatch) -> dict[str, float]:
    """How far credits moved the advantages of a rollout's tokens; docs/metrics.md gives the formulas."""
    counted = before.response_mask & (before.advantages != 0)
    if not bool(counted.any()):
        # Nothing was moved: a row of metrics has the same columns in every rollout.
        return {"credit/scale": 1.0, "credit/zero_share": 0.0, "credit/effective_share": 1.0}
    original = before.advantages[counted].double()
    weights = after.advantages[counted].double() / original
    return {
        "credit/scale": float((weights * original).abs().sum() / original.abs().sum()),
        "credit/zero_share": float((weights == 0).double().mean()),
        "credit/effective_share": float(
            weights.abs().sum().square() / (len(weights) * weights.square().sum()).clamp_min(1e-300)
        ),
    }
