"""Responses attend to their prompt and to themselves in two fused calls, merged by log-sum-exp.

All queries of a prompt's responses meet its keys in one call without a mask, and each response meets
its own keys in one causal call: no mask of (token, key) and no copy of a prompt's keys ever exists.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

_HALF_PRECISION = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ResponseRows:
    """Where response tokens, row after row, stand in the two calls.

    Attributes:
        num_groups: prompts.
        num_rollouts: responses; as many to each prompt, contiguous.
        longest_group: tokens of the longest group's responses.
        longest_response: tokens of the longest response.
        in_groups: of each row, its place among `num_groups * longest_group`.
        in_responses: of each row, its place among `num_rollouts * longest_response`.
    """

    num_groups: int
    num_rollouts: int
    longest_group: int
    longest_response: int
    in_groups: Int[Tensor, " row"]
    in_responses: Int[Tensor, " row"]

    @classmethod
    def of(cls, num_read: Int[Tensor, " rollout"], num_groups: int) -> "ResponseRows":
        """The rows of responses with so many tokens, as many responses to each prompt."""
        per_group = num_read.view(num_groups, -1).sum(dim=1)
        longest_group, longest_response = int(per_group.max()), int(num_read.max())
        return cls(
            num_groups=num_groups,
            num_rollouts=num_read.shape[0],
            longest_group=longest_group,
            longest_response=longest_response,
            in_groups=_places(per_group, longest_group),
            in_responses=_places(num_read, longest_response),
        )

    def to(self, device: torch.device) -> "ResponseRows":
        return replace(
            self,
            in_groups=self.in_groups.to(device),
            in_responses=self.in_responses.to(device),
        )


def _places(lengths: Tensor, longest: int) -> Tensor:
    """Where the tokens of lines of these lengths stand, were all lines padded to the longest."""
    offsets = torch.arange(longest)
    return (offsets < lengths.unsqueeze(1)).flatten().nonzero().squeeze(1)


def has_fused_attention(device: torch.device, precision: torch.dtype, channels: int) -> bool:
    """Whether a device has a kernel that returns the log-sum-exp, for heads of so many channels."""
    if device.type != "cuda":
        return device.type == "cpu"
    return precision in _HALF_PRECISION and channels % 8 == 0 and channels <= 256


def in_autocast(*values: Tensor) -> tuple[Tensor, ...]:
    """The values as autocast hands them to attention; it does not know these kernels."""
    device = values[0].device.type
    if not torch.is_autocast_enabled(device):
        return values
    return tuple(each.to(torch.get_autocast_dtype(device)) for each in values)


def merged_response_attention(
    query: Float[Tensor, "row head channel"],
    key: Float[Tensor, "row kv_head channel"],
    value: Float[Tensor, "row kv_head channel"],
    prompt_key: Float[Tensor, "group kv_head prompt_token channel"],
    prompt_value: Float[Tensor, "group kv_head prompt_token channel"],
    *,
    rows: ResponseRows,
    scaling: float,
) -> Float[Tensor, "row head channel"]:
    """softmax(scaling * q k) v over the keys of a row's prompt and the earlier ones of its response.

    With o_i, l_i the output and log-sum-exp over either kind of keys, l = log(e^l_1 + e^l_2) and
    o = sum_i e^(l_i - l) o_i (FlashAttention, arXiv:2205.14135v2, section 3.1).
    """
    return _Merged.apply(query, key, value, prompt_key, prompt_value, rows, scaling)


class _Merged(torch.autograd.Function):
    """The backward pass of either call, given the merged output and log-sum-exp, is its part of the whole's.

    A kernel's backward pass needs of the forward one no more than p = e^(s - l) and the sum over
    channels of o * do (ibid., appendix B.2, Eqs. 3 to 6), which are then those of all keys.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        prompt_key: Tensor,
        prompt_value: Tensor,
        rows: ResponseRows,
        scaling: float,
    ) -> Tensor:
        kv_heads = key.shape[1]
        queries = _by_group(query, rows, kv_heads)
        seen, seen_sum, *of_prompt = _fused(queries, prompt_key, prompt_value, False, scaling)
        said, said_sum, *of_own = _fused(*_by_response(query, key, value, rows), True, scaling)
        seen_sum = _rows_of_groups(seen_sum.unsqueeze(-1), rows)
        said_sum = _rows_of_responses(said_sum.unsqueeze(-1), rows)
        total = torch.logaddexp(seen_sum, said_sum)
        merged = _rows_of_groups(seen, rows) * torch.exp(seen_sum - total)
        merged += _rows_of_responses(said, rows) * torch.exp(said_sum - total)
        output = merged.to(query.dtype)
        ctx.save_for_backward(query, key, value, prompt_key, prompt_value, output, total)
        ctx.rows, ctx.scaling = rows, scaling
        ctx.extras = of_prompt, of_own
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, prompt_key, prompt_value, output, total = ctx.saved_tensors
        if not gradient.is_contiguous():  # of a sum it is one number, seen everywhere
            gradient = gradient.clone(memory_format=torch.contiguous_format)
        rows, scaling, kv_heads = ctx.rows, ctx.scaling, key.shape[1]
        of_prompt, of_own = ctx.extras
        in_groups = [_by_group(part, rows, kv_heads) for part in (gradient, query, output)]
        sums = _by_group(total, rows, kv_heads).squeeze(-1)
        dq, d_prompt_key, d_prompt_value = _fused_backward(
            in_groups[0], in_groups[1], prompt_key, prompt_value, in_groups[2], sums, of_prompt,
            False, scaling,
        )  # fmt: skip
        dq_rows = _rows_of_groups(dq, rows)
        own_gradient, own_output, own_sums = (
            _padded(part, rows.in_responses, rows.num_rollouts, rows.longest_response)
            for part in (gradient, output, total)
        )
        own = _by_response(query, key, value, rows)
        dq, dk, dv = _fused_backward(
            own_gradient, *own, own_output, own_sums.squeeze(-1), of_own, True, scaling
        )
        per_key = query.shape[1] // kv_heads
        dk, dv = (
            _rows_of_responses(part, rows).unflatten(1, (kv_heads, per_key)).sum(dim=2)
            for part in (dk, dv)
        )
        dq_rows = dq_rows + _rows_of_responses(dq, rows)
        return dq_rows, dk, dv, d_prompt_key, d_prompt_value, None, None


def _padded(values: Tensor, places: Tensor, number: int, length: int) -> Tensor:
    """Rows at their places, 0 elsewhere. [number head length channel]"""
    padded = values
    if values.shape[0] != number * length:
        padded = values.new_zeros(number * length, *values.shape[1:])
        padded.index_copy_(0, places, values)
    return padded.unflatten(0, (number, length)).transpose(1, 2)


def _by_group(values: Tensor, rows: ResponseRows, kv_heads: int) -> Tensor:
    """Rows as queries of their prompt; the heads of one key head stand below each other.

    [group kv_head head*row channel]
    """
    padded = _padded(values, rows.in_groups, rows.num_groups, rows.longest_group)
    return padded.unflatten(1, (kv_heads, -1)).flatten(2, 3)


def _rows_of_groups(values: Tensor, rows: ResponseRows) -> Tensor:
    """Undoes `_by_group`."""
    heads = values.unflatten(2, (-1, rows.longest_group)).flatten(1, 2)
    return _unpadded(heads, rows.in_groups)


def _by_response(
    query: Tensor, key: Tensor, value: Tensor, rows: ResponseRows
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows as queries and keys of their response, keys repeated to as many heads as queries have."""
    per_key = query.shape[1] // key.shape[1]

    def padded(values: Tensor) -> Tensor:
        return _padded(values, rows.in_responses, rows.num_rollouts, rows.longest_response)

    keys, values = (part.repeat_interleave(per_key, dim=1) for part in (key, value))
    return padded(query), padded(keys), padded(values)


def _rows_of_responses(values: Tensor, rows: ResponseRows) -> Tensor:
    return _unpadded(values, rows.in_responses)


def _unpadded(values: Tensor, places: Tensor) -> Tensor:
    flat = values.transpose(1, 2).flatten(0, 1)
    return flat if flat.shape[0] == places.shape[0] else flat.index_select(0, places)


def _fused(q: Tensor, k: Tensor, v: Tensor, is_causal: bool, scaling: float) -> tuple[Any, ...]:
    """Output, log-sum-exp, and what else the kernel's backward pass wants."""
    if q.device.type == "cpu":
        kernel: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return tuple(kernel(q, k, v, 0.0, is_causal, scale=scaling))
    kernel = torch.ops.aten._scaled_dot_product_flash_attention
    output, sums, *extras, _debug_mask = kernel(q, k, v, 0.0, is_causal, scale=scaling)
    return output, sums, *extras


def _fused_backward(
    gradient: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    output: Tensor,
    sums: Tensor,
    extras: Sequence[Any],
    is_causal: bool,
    scaling: float,
) -> tuple[Tensor, Tensor, Tensor]:
    aten: Any = torch.ops.aten
    if q.device.type == "cpu":
        # The layout in which the forward pass gives it.
        sums = sums.transpose(1, 2).contiguous().transpose(1, 2)
        kernel = aten._scaled_dot_product_flash_attention_for_cpu_backward
        dq, dk, dv = kernel(gradient, q, k, v, output, sums, 0.0, is_causal, scale=scaling)
        return dq, dk, dv
    cum_q, cum_k, max_q, max_k, seed, offset = extras
    dq, dk, dv = aten._scaled_dot_product_flash_attention_backward(
        gradient, q, k, v, output, sums.clone(memory_format=torch.contiguous_format),
        cum_q, cum_k, max_q, max_k, 0.0, is_causal, seed, offset, scale=scaling,
    )  # fmt: skip
    return dq, dk, dv
