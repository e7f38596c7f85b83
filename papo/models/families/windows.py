"""Language models of which some layers see a window, and in which tokens of a picture may see one another.

Neither fits a packed row, so prompts and responses are read under masks made here from positions: padding between them
moves no window. `twopass` scoring still reads a prompt once for all its responses.
"""

from collections.abc import Collection
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import DynamicCache

from papo.models.families.family import FamilyAdapter


def require_windows(config: Any, *, refused: Collection[str]) -> None:
    """Returns when some layer has a window, and the language model has none of these settings.

    Raises:
        ValueError: names what it is.
    """
    text = config.text_config
    if "sliding_attention" not in text.layer_types:
        raise ValueError(
            f"a model of family {config.model_type!r} is read with layers that see a window; got none in "
            "text_config.layer_types. Set model= or model.path= to another."
        )
    for name in refused:
        if found := getattr(text, name):
            raise ValueError(
                f"a model of family {config.model_type!r} is read without {name}; got text_config.{name}={found}. "
                "Set model= or model.path= to another."
            )


class WindowedAdapter(FamilyAdapter):
    """Reads rows under masks of (query, key), one for each kind of layer."""

    @property
    def packs(self) -> bool:
        return False

    @property
    def mutual_layers(self) -> Collection[str]:
        """The kinds of layers in which tokens of one picture see one another."""
        return ()

    def new_cache(self) -> DynamicCache:
        # Of all layers whole: masks say what a window sees, and caches of windows forget by slots, padding included.
        return DynamicCache()

    def attention_masks(
        self,
        is_token: Bool[Tensor, "row key"],
        positions: Int[Tensor, "1 row token"],
        image_slots: Bool[Tensor, "row token"] | None,
    ) -> dict[str, Tensor]:
        """Causal, and within the window for layers that have one; tokens of a picture see one another where they may."""
        config = self.language_model.config
        distance = positions[0][:, :, None] - (is_token.cumsum(dim=1) - 1)[:, None]
        causal, mutual = distance >= 0, distance >= 0
        if image_slots is not None and image_slots.shape == is_token.shape:
            starts = image_slots & ~image_slots.roll(1, dims=1)
            picture = torch.where(image_slots, starts.cumsum(dim=1), -1)
            same = picture[:, :, None] == picture[:, None]
            mutual = mutual | (same & image_slots[:, :, None])
        masks = {
            kind: (mutual if kind in self.mutual_layers else causal) & is_token[:, None]
            for kind in ("full_attention", "sliding_attention")
        }
        masks["sliding_attention"] &= distance < config.sliding_window
        masks = {kind: mask[:, None] for kind, mask in masks.items()}
        if config._attn_implementation != "eager":
            return masks
        dtype = self.head_weight.dtype  # eager attention adds its mask
        least = torch.finfo(dtype).min
        return {
            kind: torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, least)
            for kind, mask in masks.items()
        }
