"""VPPO (Huang et al., arXiv:2510.09285, code huaixuheqing/VPPO-RL@a23c54b)."""

from dataclasses import dataclass

import torch

from papo.functional import k3_dependence, largest_share, response_means
from papo.objective import Blocks, Credit, check_scope, view_needs
from papo.objective.term import TokenValues
from papo.types import Needs, RolloutBatch


@dataclass(kw_only=True, eq=False)
class VPPO(Credit):
    """Only a response's most dependent tokens learn, and responses that depend more on the picture learn more.

    Args:
        view: whose log-probs tell dependence, k3 in [0, 10].
        top_share: of a response's tokens that keep their advantage.
        least: factor of the least dependent response of the block.
        scope: where the responses are compared (code: the micro-batch, with which the method vanishes).
    """

    view: str
    top_share: float
    least: float
    scope: str = "minibatch"

    def __post_init__(self) -> None:
        self.check_share("top_share")
        self.check_share("least")
        check_scope(self.scope)

    @property
    def needs(self) -> Needs:
        return view_needs(self.view, "old", "logprobs")

    def __call__(self, batch: RolloutBatch, blocks: Blocks, *, progress: float) -> TokenValues:
        mask = batch.response_mask
        dependence = k3_dependence(batch.old_views[self.view].logprobs, batch.old_logprobs)
        means = response_means(dependence, mask)
        factor = torch.ones_like(means)
        for rows in blocks.rows(self.scope):
            low, high = means[rows].min(), means[rows].max()
            if high - low > 1e-6:
                share = (means[rows] - low) / (high - low)
                most = self.least + (1 - self.least) / (share.mean() + 1e-8)
                factor[rows] = self.least + share * (most - self.least)
        return batch.advantages * largest_share(dependence, mask, self.top_share) * factor[:, None]
