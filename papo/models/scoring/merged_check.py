"""Whether the fused kernels of this device give what their formula says, before anything relies on it."""

from functools import cache

import torch

from papo.models.merged_attention import ResponseRows, has_fused_attention
from papo.models.shared_prefix import PrefixBlock, SharedPrefixLayout, shared_prefix_attention

_PROMPT_LENGTH = 9
_RESPONSE_LENGTHS = (5, 1, 0, 7)  # of two prompts
_HEADS, _KEY_HEADS = 4, 2


@cache
def merged_is_exact(device: torch.device, precision: torch.dtype, channels: int) -> bool:
    """Whether merged attention equals attention under a mask in a small case, with its gradient.

    Within a few roundings of the precision; False also where there is no kernel.
    """
    if not has_fused_attention(device, precision, channels):
        return False
    try:
        merged = _outcome(precision, device, channels, is_merged=True)
    except RuntimeError:  # a kernel that was built for other devices
        return False
    exact = torch.promote_types(precision, torch.float32)
    masked = _outcome(exact, device, channels, is_merged=False)
    allowed = 8 * torch.finfo(precision).eps
    return all(
        float((one.to(exact) - other).abs().max()) <= allowed * float(other.abs().max())
        for one, other in zip(merged, masked, strict=True)
    )


@torch.inference_mode(False)
@torch.enable_grad()
def _outcome(
    precision: torch.dtype, device: torch.device, channels: int, *, is_merged: bool
) -> list[torch.Tensor]:
    """The output and the gradients of query, key and value."""
    with torch.autocast(device.type, enabled=False):
        generator = torch.Generator().manual_seed(0)
        length = 2 * _PROMPT_LENGTH + sum(_RESPONSE_LENGTHS)

        def rows(num_heads: int) -> torch.Tensor:
            drawn = torch.randn(length, num_heads, channels, generator=generator)
            # Rounded alike for both, so that they differ by what is computed alone.
            drawn = drawn.to(torch.bfloat16).to(device, precision)
            return drawn.requires_grad_()

        inputs = [rows(_HEADS), rows(_KEY_HEADS), rows(_KEY_HEADS)]
        block = _block(device, is_merged=is_merged)
        output = shared_prefix_attention(
            inputs[0],
            inputs[1],
            inputs[2],
            layout=SharedPrefixLayout(blocks=(block,)),
            scaling=channels**-0.5,
        )
        weights = torch.linspace(-1, 1, output.numel(), device=device).view_as(output)
        gradients = torch.autograd.grad((output * weights).sum(), inputs)
        return [output.detach(), *gradients]


def _block(device: torch.device, *, is_merged: bool) -> PrefixBlock:
    num_read = torch.tensor(_RESPONSE_LENGTHS)
    longest = max(_RESPONSE_LENGTHS)
    offsets = torch.arange(longest)
    starts = (num_read.cumsum(0) - num_read)[:, None]
    seen = torch.ones(longest, _PROMPT_LENGTH + longest, dtype=torch.bool, device=device)
    prompts = 2 * _PROMPT_LENGTH
    return PrefixBlock(
        prompts=slice(0, prompts),
        responses=slice(prompts, prompts + sum(_RESPONSE_LENGTHS)),
        rows=ResponseRows.of(num_read, 2).to(device),
        padded=torch.where(offsets < num_read[:, None], starts + offsets, 0).to(device),
        allowed=None if is_merged else seen.tril(_PROMPT_LENGTH),
    )
