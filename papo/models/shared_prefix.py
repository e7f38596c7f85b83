"""Attention of several groups packed into one row: prompts causal, responses on top of their prompt.

The row holds each prompt once and the tokens of its responses after it, without padding. A response
token attends to its own prompt and to the earlier tokens of its own response, nothing else; only the
attention function knows that, every other layer of the model works token by token.

    one block: prompts of one length, then their responses; who (row) sees whom (column)

              prompt A   prompt B   A's 1   A's 2   B's 1
    prompt A  causal     .          .       .       .
    prompt B  .          causal     .       .       .
    A's 1     all        .          causal  .       .
    A's 2     all        .          .       causal  .
    B's 1     .          all        .       .       causal

    positions of A's 1 and of A's 2 both begin where those of prompt A end
"""

from copy import copy
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from papo.models.counterfactual import Intervention, intervened_attention
from papo.models.flex_packing import packed_flex_attention
from papo.models.merged_attention import (
    ResponseRows,
    in_autocast,
    merged_response_attention,
)
from papo.models.plain_attention import plain_attention

_NAME = "papo_shared_prefix"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrefixBlock:
    """Groups whose prompts have one length, contiguous in the packed row: all prompts, then all responses.

    Attributes:
        prompts: rows of the prompt tokens.
        responses: rows of the response tokens, response after response, without padding.
        rows: how the response tokens are distributed over groups and responses.
        padded: for each response and position its row among `responses`; any row where it is padding.
        allowed: which keys (prompt, then own response) a response position attends to; None where
            attention is merged.
    """

    prompts: slice
    responses: slice
    rows: ResponseRows
    padded: Int[Tensor, "rollout token"]
    allowed: Bool[Tensor, "token key"] | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SharedPrefixLayout:
    """Where everything stands in the packed row; the blocks follow each other without a gap.

    Attributes:
        blocks: for attention block by block; under a mask, or merged.
        block_mask: for FlexAttention over the whole row at once; None for the former.
    """

    blocks: tuple[PrefixBlock, ...]
    block_mask: BlockMask | None = None


def install_shared_prefix_attention(language_model: nn.Module) -> None:
    """Lets a language model read packed rows; other calls work as before.

    The attention modules get a configuration of their own that names this function. The model's
    configuration stays as it is, so that masks, checks and saved files follow the implementation
    that was asked for.
    """
    AttentionInterface.register(_NAME, _attention)
    plain_config = cast(Any, language_model).config
    config = copy(plain_config)
    config._attn_implementation = _NAME
    for layer in cast(Any, language_model).layers:
        attention = getattr(layer, "self_attn", None)
        if attention is not None:
            attention.config = config
            attention.plain_config = plain_config


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    shared_prefix: SharedPrefixLayout | None = None,
    intervention: Intervention | None = None,
    scaling: float,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """What transformers calls; layout and intervention arrive through the keywords of the model's forward."""
    if intervention is not None:
        return intervened_attention(
            query, key, value, intervention=intervention, scaling=scaling
        ), None
    if shared_prefix is None:
        return plain_attention(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    rows = [values[0].transpose(0, 1) for values in (query, key, value)]
    return shared_prefix_attention(*rows, layout=shared_prefix, scaling=scaling)[None], None


def shared_prefix_attention(
    query: Float[Tensor, "row head channel"],
    key: Float[Tensor, "row kv_head channel"],
    value: Float[Tensor, "row kv_head channel"],
    *,
    layout: SharedPrefixLayout,
    scaling: float,
) -> Float[Tensor, "row head channel"]:
    """softmax(scaling * q k) v over the keys that each row of the packed layout may see.

    The split of Prefix Grouper (arXiv:2506.05433, section 3): exact, with gradient.
    """
    if layout.block_mask is not None:
        return packed_flex_attention(
            query, key, value, block_mask=layout.block_mask, scaling=scaling
        )
    outputs = []
    for block in layout.blocks:
        outputs.append(_prompt_attention(query, key, value, block, scaling))
        if block.rows.in_responses.numel():
            attend = _merged_attention if block.allowed is None else _response_attention
            outputs.append(attend(query, key, value, block, scaling))
    return torch.cat(outputs)


def _prompt_attention(
    query: Tensor, key: Tensor, value: Tensor, block: PrefixBlock, scaling: float
) -> Tensor:
    def prompts(rows: Tensor) -> Tensor:  # [group head token channel]
        return rows[block.prompts].unflatten(0, (block.rows.num_groups, -1)).transpose(1, 2)

    attended = scaled_dot_product_attention(
        prompts(query),
        prompts(key),
        prompts(value),
        is_causal=True,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return attended.transpose(1, 2).flatten(0, 1)


def _response_attention(
    query: Tensor, key: Tensor, value: Tensor, block: PrefixBlock, scaling: float
) -> Tensor:
    assert block.allowed is not None, "a block without a mask is merged"
    num_rollouts, num_tokens = block.padded.shape
    num_kv_heads, channels = key.shape[1:]
    heads_per_key = query.shape[1] // num_kv_heads

    def own(rows: Tensor) -> Tensor:  # [rollout token head channel]
        padded = rows[block.responses].index_select(0, block.padded.flatten())
        return padded.unflatten(0, (num_rollouts, num_tokens))

    def with_prompt(rows: Tensor) -> Tensor:  # [rollout kv_head key channel]
        prompts = rows[block.prompts].unflatten(0, (block.rows.num_groups, 1, -1))
        repeated = prompts.expand(-1, num_rollouts // block.rows.num_groups, -1, -1, -1).flatten(
            0, 1
        )
        return torch.cat([repeated, own(rows)], dim=1).transpose(1, 2)

    # The query heads of one key head stand below each other as further queries: keys and values
    # are then never repeated per head.
    stacked = own(query).unflatten(2, (num_kv_heads, heads_per_key)).permute(0, 2, 3, 1, 4)
    attended = scaled_dot_product_attention(
        stacked.flatten(2, 3),
        with_prompt(key),
        with_prompt(value),
        attn_mask=block.allowed.repeat(heads_per_key, 1),
        scale=scaling,
    )
    attended = attended.unflatten(2, (heads_per_key, num_tokens)).permute(0, 3, 1, 2, 4)
    return attended.reshape(-1, query.shape[1], channels).index_select(0, block.rows.in_responses)


def _merged_attention(
    query: Tensor, key: Tensor, value: Tensor, block: PrefixBlock, scaling: float
) -> Tensor:
    def of_prompts(rows: Tensor) -> Tensor:  # [group kv_head token channel]
        return rows[block.prompts].unflatten(0, (block.rows.num_groups, -1)).transpose(1, 2)

    attended = merged_response_attention(
        *in_autocast(query[block.responses], key[block.responses], value[block.responses]),
        *in_autocast(of_prompts(key), of_prompts(value)),
        rows=block.rows,
        scaling=scaling,
    )
    return attended
