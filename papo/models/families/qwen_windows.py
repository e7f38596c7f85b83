"""Attention of the vision tower, batched: one call per layer and size of window, not one per window.

transformers cuts a pass at every picture and window, calls attention once for each, and asks the
device for their lengths in every layer. Where the windows lie follows from the sizes of the
pictures alone, so it is worked out here once per pass, on the CPU. What a patch attends to, and the
result to the last bit, are as before.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.vision_utils import (
    get_vision_cu_seqlens,
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
    get_vision_window_index,
)

from papo.models.plain_attention import plain_attention

_NAME = "papo_vision_windows"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EqualWindows:
    """The windows of one kind of layer, those of one size together.

    Attributes:
        sizes: patches of a window, and how many windows have so many.
        order: the patches in the order of `sizes`; None where they stand so.
        back: undoes `order`.
    """

    sizes: tuple[tuple[int, int], ...]
    order: Int[Tensor, " patch"] | None
    back: Int[Tensor, " patch"] | None

    @classmethod
    def of(cls, ends: Int[Tensor, " _"], device: torch.device) -> "EqualWindows":
        """The windows between consecutive ends, which are on the CPU and begin with 0."""
        lengths = ends.diff()
        sizes, counts = lengths.unique(return_counts=True)
        of_patch = lengths.repeat_interleave(lengths)
        order = of_patch.argsort(stable=True)
        stands_so = bool((order[1:] > order[:-1]).all())
        return cls(
            sizes=tuple(zip(sizes.tolist(), counts.tolist(), strict=True)),
            order=None if stands_so else _on(order, device),
            back=None if stands_so else _on(order.argsort(), device),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PictureWindows:
    """Of one pass: what layers that see whole pictures attend in, and what those with windows do."""

    whole: EqualWindows
    windowed: EqualWindows


def install_batched_windows(tower: nn.Module) -> None:
    """Lets the layers of a vision tower attend as `pass_arguments` says; other calls work as before.

    Kernels that take pictures of all sizes in one call (flash_attention_2) are left alone.
    """
    config = cast(Any, tower).config
    if "flash" in (config._attn_implementation or ""):
        return
    AttentionInterface.register(_NAME, _attention)
    own_config = copy(config)
    own_config._attn_implementation = _NAME
    whole = getattr(tower, "fullatt_block_indexes", None)
    for index, block in enumerate(cast(Any, tower).blocks):
        block.attn.config = own_config
        block.attn.plain_config = config
        block.attn.sees_whole_pictures = whole is None or index in whole


def pass_arguments(
    tower: Any, grids: Int[Tensor, "image 3"], device: torch.device
) -> dict[str, Any]:
    """What a pass over pictures of these sizes, which are on the CPU, would else work out on its device."""
    if not hasattr(tower.blocks[0].attn, "plain_config"):
        return {}
    merge = tower.spatial_merge_size
    arguments: dict[str, Any] = {"position_ids": _on(get_vision_position_ids(grids, merge), device)}
    if hasattr(tower, "pos_embed"):
        indices, weights = get_vision_interpolation_indices_and_weights(
            grids,
            num_grid_per_side=tower.num_grid_per_side,
            mode=tower.interpolation_mode,
            align_corners=tower.interpolation_align_corners,
            spatial_merge_size=merge,
        )
        arguments |= {
            "interp_indices": _on(indices, device),
            "interp_weights": _on(weights, device),
        }
    whole = windowed = EqualWindows.of(get_vision_cu_seqlens(grids), device)
    if hasattr(tower, "window_size"):
        window_index, ends = get_vision_window_index(
            grids,
            spatial_merge_size=merge,
            window_size=tower.window_size,
            patch_size=tower.patch_size,
        )
        windowed = EqualWindows.of(ends, device)
        arguments["window_index"] = _on(window_index, device)
    # The tower itself sees one window: it hands all patches to the attention in one call.
    one_window = torch.tensor([0, int(grids.prod(dim=1).sum())], dtype=torch.int32)
    return arguments | {
        "cu_seqlens": one_window,
        "cu_window_seqlens": one_window,
        "picture_windows": PictureWindows(whole=whole, windowed=windowed),
    }


def _attention(
    module: Any,
    query: Float[Tensor, "1 head patch channel"],
    key: Float[Tensor, "1 head patch channel"],
    value: Float[Tensor, "1 head patch channel"],
    attention_mask: None,
    *,
    picture_windows: PictureWindows | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """What transformers calls; the windows arrive through the keywords of the tower's forward."""
    if picture_windows is None:
        return plain_attention(module, query, key, value, attention_mask, **kwargs)
    windows = picture_windows.whole if module.sees_whole_pictures else picture_windows.windowed

    def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return plain_attention(module, queries, keys, values, attention_mask, **kwargs)[0]

    return windowed_attention(query, key, value, windows=windows, attend=attend), None


def windowed_attention(
    query: Float[Tensor, "1 head patch channel"],
    key: Float[Tensor, "1 head patch channel"],
    value: Float[Tensor, "1 head patch channel"],
    *,
    windows: EqualWindows,
    attend: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Float[Tensor, "1 patch head channel"]:
    """Every patch attends to its window; `attend` is called once for each size."""
    rows = [values[0].transpose(0, 1) for values in (query, key, value)]
    if windows.order is not None:
        rows = [_Permuted.apply(values, windows.order, windows.back) for values in rows]
    attended, start = [], 0
    for size, number in windows.sizes:
        stop = start + size * number
        batch = [values[start:stop].unflatten(0, (number, size)).transpose(1, 2) for values in rows]
        attended.append(attend(*batch).flatten(0, 1))
        start = stop
    together = torch.cat(attended) if len(attended) > 1 else attended[0]
    if windows.back is not None:
        together = _Permuted.apply(together, windows.back, windows.order)
    return together[None]


class _Permuted(torch.autograd.Function):
    """Rows in another order; the gradient is gathered as well, where autograd would add it row by row."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return rows.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (back,) = ctx.saved_tensors
        return gradient.index_select(0, back), None, None


def _on(values: Tensor, device: torch.device) -> Tensor:
    # Nothing waits for so small a copy.
    return values.to(device, non_blocking=True)
