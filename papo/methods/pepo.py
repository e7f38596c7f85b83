"""PEPO (arXiv:2603.22847, code xzxxntxdy/PEPO@2b1e788)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from papo.functional import min_max, response_means
from papo.objective import Blocks, Credit, Number, TokenValues, old, old_needs
from papo.types import IMAGE, Needs, RolloutBatch


@dataclass(kw_only=True, eq=False)
class PEPO(Credit):
    """Tokens whose hidden states look more like the picture's learn more, the more so the later in the run.

    Args:
        gate: how far a token is favoured that looks more like the picture and is less certain than others.
        temperature: of the softmax over the tokens of a response that makes weights.
    """

    gate: Number
    temperature: Number

    def __post_init__(self) -> None:
        self.check_number("gate", most=1.0)
        self.check_number("temperature", least=1e-3)

    @property
    def needs(self) -> Needs:
        return old_needs((IMAGE, "image_cosine_layers"), (IMAGE, "entropy"))

    @property
    def depends_on_progress(self) -> bool:
        return True

    def __call__(self, batch: RolloutBatch, blocks: Blocks, *, progress: float) -> TokenValues:
        looks, entropy = old(batch, IMAGE, "image_cosine_layers"), old(batch, IMAGE, "entropy")
        weights = self.weights(looks, entropy, batch.response_mask)
        return batch.advantages * (1 - progress + progress * weights)

    def weights(
        self, looks: TokenValues, entropy: TokenValues, mask: Bool[Tensor, "rollout token"]
    ) -> TokenValues:
        """Returns the weights of tokens, with gradient: 1 in the mean of each response, 0 at padding."""
        both = min_max(looks, mask, least_range=1e-6) + min_max(entropy, mask, least_range=1e-6)
        gate = 1 + self.gate * torch.tanh(both - response_means(both, mask)[:, None])
        logits = (looks * gate / self.temperature).masked_fill(~mask, -1e9)
        return (logits.softmax(1) * mask.sum(1, keepdim=True)).where(mask, 0.0)
