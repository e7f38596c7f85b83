"""CGPO (ACM Multimedia 2026, code zsxm1998/awesome-perception-aware-rlvr@160666d), without its reward."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from papo.functional import k3_dependence, largest_share, response_means, robust_scores
from papo.objective import Blocks, Credit, Number, TokenValues, old, old_needs
from papo.types import IMAGE, Needs, RolloutBatch


@dataclass(kw_only=True, eq=False)
class CGPO(Credit):
    """Uncertain and dependent tokens learn, the dependent ones more in responses that depend more.

    Args:
        view: whose log-probs tell dependence, k3 in [0, 10].
        entropy_share: of the tokens of a block, those with the largest entropy; null: none.
        perception_share: those with the largest dependence; null: none. Where both are null, all tokens learn.
        scale: a dependent token's advantage is multiplied by 1 + scale * tanh(robust score of its response).
        selection_scope: the block (code: the micro-batch).
        scope: where responses are compared.
        regions: says which tokens write the boxes of the evidence; they count as dependent. None is shipped.
    """

    view: str
    entropy_share: Number | None
    perception_share: Number | None
    scale: Number
    selection_scope: str = "minibatch"
    scope: str = "rollout"
    regions: Callable[[RolloutBatch], Tensor] | None = None

    def __post_init__(self) -> None:
        self.check_share("entropy_share", "perception_share")
        self.check_number("scale")
        self.check_scopes("selection_scope", "scope")

    @property
    def needs(self) -> Needs:
        return old_needs((self.view, "logprobs"), (IMAGE, "entropy"))

    def __call__(self, batch: RolloutBatch, blocks: Blocks, *, progress: float) -> TokenValues:
        mask, rows = batch.response_mask, blocks.rows(self.selection_scope)
        dependence = k3_dependence(old(batch, self.view), batch.old_logprobs)
        means, scores = response_means(dependence, mask), torch.zeros(len(mask)).to(dependence)
        for block in blocks.rows(self.scope):
            scores[block] = robust_scores(means[block])
        sees = largest_share(dependence, mask, self.perception_share or 0.0, rows=rows)
        if self.regions is not None and self.perception_share is not None:
            sees |= self.regions(batch)
        entropy = old(batch, IMAGE, "entropy")
        chosen = sees | largest_share(entropy, mask, self.entropy_share or 0.0, rows=rows)
        if self.entropy_share is None and self.perception_share is None:
            chosen = mask
        factors = torch.where(sees, 1 + self.scale * scores.tanh()[:, None], 1.0)
        return batch.advantages * factors * chosen
