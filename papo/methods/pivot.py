"""PIVOT (arXiv:2609.18057, Eq. 4 to 13; no code): its token advantages, without its replay."""

from dataclasses import dataclass

import torch

from papo.functional import detrended, discounted_future
from papo.objective import Blocks, Credit, Number, SettingError, TokenValues, old, old_needs
from papo.types import IMAGE, Needs, RolloutBatch


@dataclass(kw_only=True, eq=False)
class PIVOT(Credit):
    """A token gains by what the picture supports of it and, where it is uncertain, of the tokens after it.

    Args:
        view: a masked one.
        beta: weight of the utility against |A|.
        future_weight: of the support that follows.
        discount: of it, per token.
        window: tokens that follow, at most.
        least_support: 1 - q / p is cut here, since it has no lower bound; null: it is not (paper).
        scope: where the mean entropy is taken that the gate compares with.
    """

    view: str
    beta: Number
    future_weight: Number
    discount: Number
    window: int
    least_support: Number | None
    scope: str = "rollout"

    def __post_init__(self) -> None:
        self.check_share("discount")
        self.check_number("beta", "future_weight")
        self.check_number("window", least=1.0)
        self.check_scopes("scope")
        if self.least_support is not None and not self.least_support < 0:
            raise SettingError(f"{{least_support}} is negative, or null; got {self.least_support}")

    @property
    def needs(self) -> Needs:
        return old_needs((self.view, "logprobs"), (IMAGE, "entropy"))

    def gate(self, batch: RolloutBatch, blocks: Blocks) -> TokenValues:
        """Returns 1 - exp(-H / mean H of the block) of each token; 0 where H is."""
        entropy, gate = old(batch, IMAGE, "entropy"), torch.zeros_like(batch.old_logprobs)
        for rows in blocks.rows(self.scope):
            mean = entropy[rows][batch.response_mask[rows]].mean().clamp_min(1e-12)
            gate[rows] = -torch.expm1(-entropy[rows] / mean)
        return gate

    def __call__(self, batch: RolloutBatch, blocks: Blocks, *, progress: float) -> TokenValues:
        mask = batch.response_mask
        support = -torch.expm1(old(batch, self.view) - batch.old_logprobs)
        support = support if self.least_support is None else support.clamp_min(self.least_support)
        future = discounted_future(support, mask, discount=self.discount, window=self.window)
        future = detrended(self.gate(batch, blocks) * future, mask)
        utility = support + self.future_weight * future
        given = batch.advantages + self.beta * batch.advantages.abs() * utility
        # No token of a right answer is pushed down, none of a wrong one up.
        return torch.where(batch.correct[:, None], given.clamp_min(0), given.clamp_max(0))
