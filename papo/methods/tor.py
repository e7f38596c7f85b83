"""ToR (arXiv:2603.25077, Eq. 5 to 9, as an implementation by others restates them; no code by the authors)."""

from dataclasses import dataclass

from papo.functional import largest_share
from papo.objective import Blocks, Credit, Number, TokenValues, old, old_needs
from papo.types import IMAGE, Needs, RolloutBatch


@dataclass(kw_only=True, eq=False)
class ToR(Credit):
    """Two kinds of tokens learn: uncertain ones (reasoning), and ones that the picture changes (perception).

    Args:
        view: without the picture.
        reasoning_share: of the tokens of a block, those with the largest nucleus entropy.
        perception_share: of the tokens of a block, those with the largest |log p - log p(view)|.
        reasoning_weight: what the advantage of a reasoning token is multiplied by.
        perception_weight: of a token that is only a perception token; any other has 0.
        scope: the block.
    """

    view: str
    reasoning_share: Number
    perception_share: Number
    reasoning_weight: Number
    perception_weight: Number
    scope: str = "rollout"

    def __post_init__(self) -> None:
        self.check_share("reasoning_share", "perception_share")
        self.check_number("reasoning_weight", "perception_weight")
        self.check_scopes("scope")

    @property
    def needs(self) -> Needs:
        return old_needs((self.view, "logprobs"), (IMAGE, "nucleus_entropy"))

    def __call__(self, batch: RolloutBatch, blocks: Blocks, *, progress: float) -> TokenValues:
        mask, rows = batch.response_mask, blocks.rows(self.scope)
        entropy = old(batch, IMAGE, "nucleus_entropy")
        change = (batch.old_logprobs - old(batch, self.view)).abs()
        # Most nucleus entropies are exactly 0: which of them are chosen must not depend on the place.
        reasons = largest_share(entropy, mask, self.reasoning_share, rows=rows, shuffles_ties=True)
        sees = largest_share(change, mask, self.perception_share, rows=rows, shuffles_ties=True)
        weights = self.perception_weight * sees.to(entropy)
        return batch.advantages * weights.masked_fill(reasons, self.reasoning_weight)
