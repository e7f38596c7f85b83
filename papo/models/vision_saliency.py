"""How much attention a policy's own vision tower pays to each patch."""

import torch
from jaxtyping import Float
from torch import Tensor

from papo.models.policy import VisionLanguagePolicy
from papo.types import PromptGroup


class VisionTowerSaliency:
    """The attention that patches receive in the tower's layers, as the policy is at that moment.

    Averaged over heads, summed over the patches that attend and over the layers in which every
    patch of a tile sees every other. For `papo.masking.SemanticMask`.

    Args:
        policy: whose tower is asked.
    """

    def __init__(self, policy: VisionLanguagePolicy) -> None:
        self.policy = policy

    @torch.no_grad()
    def __call__(self, group: PromptGroup) -> Float[Tensor, " patch"]:
        """Returns one number per row of `group.patches`, in their order, on the CPU.

        Raises:
            ValueError: the prompt has no image.
        """
        if group.patches is None:
            raise ValueError(
                f"problem {group.problem.id!r} has no image whose patches could matter"
            )
        patches = group.patches.to(self.policy.device)
        return self.policy.adapter.received_attention(patches, group.pictures).cpu()
