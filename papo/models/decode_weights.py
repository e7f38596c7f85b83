"""The weights that single tokens are read with, as papo.models.decode_step multiplies them.

    on a GPU, or in half precision    the model's own, or one narrow copy; layers of one input joined
    on a CPU in float32               large ones once more in the order in which oneDNN reads them, joined

A product of few rows reads its matrix once, so putting that in order every time costs as much as multiplying.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, rms_norm

PACKED_FROM = 2**18
"""Numbers in a matrix that is held in oneDNN's order; smaller ones stay in the cache, where order costs little."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Projection:
    """A linear layer, and the low-rank adapters on top of it.

    Attributes:
        weight: in oneDNN's order where that is no strided tensor.
    """

    weight: Tensor
    bias: Tensor | None
    adapters: tuple[tuple[Tensor, Tensor, float], ...] = ()

    def __call__(self, values: Tensor) -> Tensor:
        if self.weight.layout == torch.strided:
            result = linear(values, self.weight, self.bias)
        else:
            # What torch.compile makes of a linear layer with frozen weights; it has no public name.
            result = torch.ops.mkldnn._linear_pointwise(
                values, self.weight, self.bias, "none", [], ""
            )
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


def packs(numbers: int) -> bool:
    """Whether a float32 matrix of so many numbers is held in oneDNN's order on a CPU."""
    return numbers >= PACKED_FROM and can_pack()


def can_pack() -> bool:
    """Whether this PyTorch has oneDNN and both operators, which have no public name and may move."""
    operators = ("_linear_pointwise", "_reorder_linear_weight")
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in operators
    )


def is_packed(weight: Tensor) -> bool:
    """Whether it is multiplied in oneDNN's order: the same products, added up in another one."""
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and packs(weight.numel())


def in_order(weight: Tensor) -> Tensor:
    """The matrix as it is multiplied: packed where `is_packed`, else itself."""
    if not is_packed(weight):
        return weight
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach())
    return packed


def projection(module: Any, dtype: torch.dtype) -> Projection:
    """A linear layer, or one of peft around it; dropout of adapters is 0 here (papo.models.lora)."""
    part = _plain(module, dtype)
    return replace(part, weight=in_order(part.weight))


def _plain(module: Any, dtype: torch.dtype) -> Projection:
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
    """Layers of one input: one matrix where they are copied anyway and have no adapters, else as they are."""
    parts = tuple(_plain(module, dtype) for module in modules)
    copied = all(
        is_packed(part.weight)
        or part.weight.data_ptr() != getattr(module, "base_layer", module).weight.data_ptr()
        for part, module in zip(parts, modules, strict=True)
    )
    if not copied or any(part.adapters for part in parts):
        return tuple(replace(part, weight=in_order(part.weight)) for part in parts)
    biases = [part.bias for part in parts if part.bias is not None]
    return (
        Projection(
            weight=in_order(torch.cat([part.weight for part in parts])),
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
