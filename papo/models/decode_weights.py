"""The weights that single tokens are read with, as papo.models.decode_step multiplies them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, rms_norm


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Projection:
    """A linear layer, and the low-rank adapters on top of it."""

    weight: Tensor
    bias: Tensor | None
    adapters: tuple[tuple[Tensor, Tensor, float], ...] = ()

    def __call__(self, values: Tensor) -> Tensor:
        result = linear(values, self.weight, self.bias)
        for down, up, scale in self.adapters:
            added = linear(linear(values.to(down.dtype), down), up) * scale
            result = (result + added).to(result.dtype)
        return result


def product_dtype(weight: Tensor) -> torch.dtype:
    """What products with such a tensor are computed in: that of autocast where it is on."""
    device = weight.device.type
    if weight.dtype != torch.float64 and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return weight.dtype


def projection(module: Any, dtype: torch.dtype) -> Projection:
    """A linear layer, or one of peft around it; dropout of adapters is 0 here (papo.models.lora)."""
    base = getattr(module, "base_layer", module)
    adapters = []
    if base is not module and not module.disable_adapters:
        for name in module.active_adapters:
            if name in module.lora_A:
                down, up = module.lora_A[name].weight, module.lora_B[name].weight
                if dtype != base.weight.dtype:  # autocast narrows them too
                    down, up = down.to(dtype), up.to(dtype)
                adapters.append((down, up, float(module.scaling[name])))
    bias = None if base.bias is None else base.bias.to(dtype)
    return Projection(weight=base.weight.to(dtype), bias=bias, adapters=tuple(adapters))


def joined(modules: Sequence[Any], dtype: torch.dtype) -> tuple[Projection, ...]:
    """Layers of one input: one matrix where they were copied and have no adapters, else as they are."""
    parts = tuple(projection(module, dtype) for module in modules)
    copied = all(
        part.weight.data_ptr() != getattr(module, "base_layer", module).weight.data_ptr()
        for part, module in zip(parts, modules, strict=True)
    )
    if not copied or any(part.adapters for part in parts):
        return parts
    biases = [part.bias for part in parts if part.bias is not None]
    return (
        Projection(
            weight=torch.cat([part.weight for part in parts]),
            bias=torch.cat(biases) if biases else None,
        ),
    )


def all_of(parts: Sequence[Projection], values: Tensor) -> Tensor:
    if len(parts) == 1:
        return parts[0](values)
    return torch.cat([part(values) for part in parts], dim=-1)


def root_mean_square(norm: Any, values: Tensor) -> Tensor:
    """Root mean square norm: the fused one where the model's own rounds nothing on the way."""
    weight = norm.weight
    if values.dtype == weight.dtype and values.dtype in (torch.float32, torch.float64):
        if not hasattr(
            norm, "variance_epsilon"
        ):  # those that call it eps hold their weight minus 1
            return rms_norm(values, weight.shape, 1 + weight, norm.eps)
        return rms_norm(values, weight.shape, weight, norm.variance_epsilon)
    result: Tensor = norm(values)
    return result
