"""VPPO (Huang et al., arXiv:2510.09285, code huaixuheqing/VPPO-RL@a23c54b)."""

from dataclasses import dataclass

import torch

from papo.functional import k3_dependence, largest_factor, largest_share, response_means
from papo.objective import Blocks, Credit, Number, TokenValues, old, old_needs
from papo.types import IMAGE, Needs, RolloutBatch


@dataclass(kw_only=True, eq=False)
class VPPO(Credit):
    """Only a response's most dependent tokens learn, and responses that depend more on the picture learn more.

    Args:
        view: whose log-probs tell dependence, k3 in [0, 10].
        top_share: of a response's tokens that keep their advantage; null: only those of `entropy_share` do. Where both
            are null, all tokens do.
        least: factor of the least dependent response of the block; 1: all factors are 1.
        entropy_share: tokens with the largest entropy that keep it too (an option of the code); null: none.
        scope: where responses are compared.
        mean_scope: where the factors have a mean of 1 (code: the micro-batch, with which the method vanishes).
    """

    view: str
    top_share: Number | None
    least: Number
    entropy_share: Number | None = None
    scope: str = "minibatch"
    mean_scope: str = "minibatch"

    def __post_init__(self) -> None:
        self.check_share("top_share", "least", "entropy_share")
        self.check_scopes("scope", "mean_scope")

    @property
    def needs(self) -> Needs:
        entropy = () if self.entropy_share is None else ((IMAGE, "entropy"),)
        return old_needs((self.view, "logprobs"), *entropy)

    @property
    def weighs(self) -> bool:
        return self.least < 1

    def __call__(self, batch: RolloutBatch, blocks: Blocks, *, progress: float) -> TokenValues:
        mask = batch.response_mask
        dependence = k3_dependence(old(batch, self.view), batch.old_logprobs)
        chosen = largest_share(dependence, mask, self.top_share or 0.0)
        if self.top_share is None and self.entropy_share is None:
            chosen = mask
        if self.entropy_share is not None:
            chosen |= largest_share(old(batch, IMAGE, "entropy"), mask, self.entropy_share)
        means = response_means(dependence, mask)
        share, factor = torch.zeros_like(means), torch.ones_like(means)
        for rows in blocks.rows(self.scope):
            low, high = means[rows].min(), means[rows].max()
            share[rows] = (means[rows] - low) / (high - low) if high - low > 1e-6 else torch.nan
        for rows in blocks.rows(self.mean_scope):
            most = largest_factor(share[rows], self.least)
            factor[rows] = self.least + share[rows] * (most - self.least)
        return batch.advantages * chosen * factor.nan_to_num(nan=1.0)[:, None]
