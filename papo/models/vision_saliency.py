"""How much attention a policy's own vision tower pays to each patch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision
from transformers.vision_utils import get_vision_window_index

from papo.models.policy import VisionLanguagePolicy
from papo.types import PromptGroup


class VisionTowerSaliency:
    """The attention that patches receive in the tower's layers, as the policy is at that moment.

    Averaged over heads, summed over the patches that attend and over the layers in which every
    patch of a picture sees every other: all of Qwen3-VL's, the full-attention ones of Qwen2.5-VL.
    For `papo.masking.SemanticMask`.

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
        if group.patches is None or group.image_grid_thw is None:
            raise ValueError(
                f"problem {group.problem.id!r} has no image whose patches could matter"
            )
        # The towers differ by family, and are told apart by their attributes.
        tower: Any = self.policy.adapter.vision_tower
        device = self.policy.device
        grids = group.image_grid_thw.to(device)
        received = torch.zeros(group.patches.shape[0], device=device)
        layers = getattr(tower, "fullatt_block_indexes", range(len(tower.blocks)))

        def note(
            attention: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
        ) -> None:
            received.add_(_attention_received(attention, *arguments, **keywords))

        with _hooks([tower.blocks[layer].attn for layer in layers], note):
            tower(group.patches.to(device), grid_thw=grids)
        return _in_patch_order(tower, received, grids).cpu()


def _attention_received(
    attention: Any,
    hidden_states: Float[Tensor, "patch hidden"],
    cu_seqlens: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    **_: Any,
) -> Float[Tensor, " patch"]:
    """What `attention` computes and keeps to itself: softmax(q k^T), mean of heads, sum of queries."""
    shape = (hidden_states.shape[0], 3, attention.num_heads, -1)
    queries, keys, _values = attention.qkv(hidden_states).reshape(shape).unbind(dim=1)
    queries, keys = apply_rotary_pos_emb_vision(queries, keys, *position_embeddings)
    received = []
    pictures = (cu_seqlens[1:] - cu_seqlens[:-1]).tolist()
    for q, k in zip(queries.split(pictures), keys.split(pictures), strict=True):
        # Head by head: a picture of 5,000 patches makes maps of 100 MB each.
        maps = (
            ((q[:, head] @ k[:, head].T) * attention.scaling).float().softmax(dim=-1).sum(dim=0)
            for head in range(q.shape[1])
        )
        received.append(torch.stack(tuple(maps)).mean(dim=0))
    return torch.cat(received)


def _in_patch_order(
    tower: Any, values: Float[Tensor, " patch"], grids: Tensor
) -> Float[Tensor, " patch"]:
    """Undoes the order in which towers with windowed attention keep their patches."""
    if not hasattr(tower, "window_size"):
        return values
    order, _ = get_vision_window_index(
        grids,
        spatial_merge_size=tower.spatial_merge_size,
        window_size=tower.window_size,
        patch_size=tower.patch_size,
    )
    tokens = values.reshape(-1, tower.spatial_merge_unit)
    return tokens[order.argsort().to(tokens.device)].reshape(-1)


@contextmanager
def _hooks(modules: list[nn.Module], note: Any) -> Iterator[None]:
    handles = [module.register_forward_pre_hook(note, with_kwargs=True) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
