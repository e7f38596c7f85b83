"""The mask of a packed row for FlexAttention: one fused kernel on a GPU, whatever the lengths.

A GPU skips the blocks of the mask that are empty, so a packed row costs what its allowed pairs cost.
The CPU has no kernel and no backward pass for it; there it serves to check the mask.
"""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention


def packed_block_mask(owner: Int[Tensor, " row"], continues: Int[Tensor, " row"]) -> BlockMask:
    """Which rows of a packed row see which.

    Args:
        owner: the prompt or the response that a row belongs to, by a number of its own.
        continues: the owner of the prompt that a row of a response continues; -1 for prompts.
    """

    length = owner.shape[0]
    # A lambda: the function is inspected for its four arguments, and shape checks would wrap a def.
    return create_block_mask(
        lambda batch, head, query, key: (
            ((owner[key] == owner[query]) & (key <= query)) | (owner[key] == continues[query])
        ),
        *(None, None, length, length),
        device=str(owner.device),
    )


def packed_flex_attention(
    query: Float[Tensor, "row head channel"],
    key: Float[Tensor, "row kv_head channel"],
    value: Float[Tensor, "row kv_head channel"],
    *,
    block_mask: BlockMask,
    scaling: float,
) -> Float[Tensor, "row head channel"]:
    """softmax(scaling * q k) v over the keys that the mask allows."""
    rows = [values.transpose(0, 1)[None] for values in (query, key, value)]
    attend = _compiled() if query.is_cuda else _plain
    attended = attend(*rows, block_mask=block_mask, scale=scaling, enable_gqa=True)
    return attended[0].transpose(0, 1)


@cache
def _compiled() -> Callable[..., Tensor]:
    # Without dynamic shapes every new length would be compiled anew.
    compiled: Callable[..., Tensor] = torch.compile(flex_attention, dynamic=True)
    return compiled


def _plain(*rows: Tensor, **settings: Any) -> Tensor:
    with warnings.catch_warnings():
        # It warns that it is slow without a compiler, which is why it is not the CPU's way.
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
        attended: Tensor = cast(Any, flex_attention)(*rows, **settings)
    return attended
