"""Reads prompts: padding them side by side, their vision features, the cached prefix and its growth."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache

from papo.models.adapter import QwenVLAdapter, VisionFeatures
from papo.models.growing_cache import empty_like, growing_cache
from papo.models.shared_decoding import SharedPrompts
from papo.models.vision_cache import VisionFeatureCache
from papo.types import PromptGroup, View


@dataclass(slots=True, kw_only=True, eq=False)
class Prefix:
    """Prompts read once, ready to be continued: one row per prompt, or per response when expanded.

    Attributes:
        cache: keys and values of what each row has read; without its prompt where prompts are shared.
        attention_mask: True where the cache holds a real token.
        last_hidden: hidden state that predicts the next token of each row.
        next_positions: M-RoPE position of the next token of each row.
        prompts: what several rows share, if they do.
    """

    cache: DynamicCache
    attention_mask: Bool[Tensor, "row key"]
    last_hidden: Float[Tensor, "row hidden"]
    next_positions: Int[Tensor, " row"]
    prompts: SharedPrompts | None = None

    def expand(self, num_responses: int) -> "Prefix":
        """Repeats every row `num_responses` times, contiguously; gradient flows into the prompt."""
        self.cache.batch_repeat_interleave(num_responses)
        return Prefix(
            cache=self.cache,
            attention_mask=self.attention_mask.repeat_interleave(num_responses, dim=0),
            last_hidden=self.last_hidden.repeat_interleave(num_responses, dim=0),
            next_positions=self.next_positions.repeat_interleave(num_responses),
        )

    def share(self, num_responses: int) -> "Prefix":
        """As `expand`, to be continued token by token, without a copy of the prompt per row.

        Models whose layers see only a window are expanded: their cache forgets.
        """
        own = empty_like(self.cache)
        if own is None:
            return self.expand(num_responses)
        layers = cast(list[Any], self.cache.layers)
        prompts = SharedPrompts.expanded(
            [layer.keys for layer in layers],
            [layer.values for layer in layers],
            self.attention_mask,
            num_responses,
        )
        return Prefix(
            cache=own,
            attention_mask=prompts.own_mask,
            last_hidden=self.last_hidden.repeat_interleave(num_responses, dim=0),
            next_positions=self.next_positions.repeat_interleave(num_responses),
            prompts=prompts,
        )

    def select(self, rows: Int[Tensor, " kept"]) -> "Prefix":
        """Keeps the given rows only."""
        self.cache.batch_select_indices(rows)
        return Prefix(
            cache=self.cache,
            attention_mask=self.attention_mask[rows],
            last_hidden=self.last_hidden[rows],
            next_positions=self.next_positions[rows],
            prompts=None if self.prompts is None else self.prompts.select(rows),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PaddedPrompts:
    """Prompts side by side, padded on the right."""

    ids: Int[Tensor, "prompt prompt_token"]
    mask: Bool[Tensor, "prompt prompt_token"]
    image_slots: Bool[Tensor, "prompt prompt_token"]
    positions: Int[Tensor, "3 prompt prompt_token"]
    next_positions: Int[Tensor, " prompt"]

    def lengths(self) -> Int[Tensor, " prompt"]:
        return self.mask.sum(dim=1)


class PromptReader:
    """What sampling and every scoring backend share: prompts and their images into hidden states.

    Args:
        adapter: of the model that reads.
        vision_cache: features of a frozen tower, shared by all readers with that tower; None where
            the tower is trained.

    Attributes:
        passes_alike: every pass calls every layer of a trained tower and of the decoder equally often.
    """

    def __init__(self, adapter: QwenVLAdapter, vision_cache: VisionFeatureCache | None) -> None:
        self.adapter = adapter
        self.vision_cache = vision_cache
        self.passes_alike = False

    @property
    def device(self) -> torch.device:
        return self.adapter.head_weight.device

    def pad_prompts(self, groups: Sequence[PromptGroup]) -> PaddedPrompts:
        longest = max(group.prompt_ids.shape[0] for group in groups)
        ids = torch.zeros(len(groups), longest, dtype=torch.long)
        mask = torch.zeros(len(groups), longest, dtype=torch.bool)
        positions = torch.zeros(3, len(groups), longest, dtype=torch.long)
        for row, group in enumerate(groups):
            length = group.prompt_ids.shape[0]
            ids[row, :length] = group.prompt_ids
            mask[row, :length] = True
            positions[:, row, :length] = group.position_ids
        next_positions = torch.tensor([group.next_position for group in groups])
        slots = (ids == self.adapter.image_token_id) & mask
        device = self.device
        return PaddedPrompts(
            ids=ids.to(device),
            mask=mask.to(device),
            image_slots=slots.to(device),
            positions=positions.to(device),
            next_positions=next_positions.to(device),
        )

    def vision_features(self, groups: Sequence[PromptGroup], view: View) -> VisionFeatures | None:
        """The images of all groups, in order: at most one call of the tower, each image in it once."""
        pictured = [group for group in groups if group.patches is not None]
        if not pictured:
            return self._nothing_seen() if self.passes_alike else None
        patches = [_require(view_patches(group, view)) for group in pictured]
        grids = [_require(group.image_grid_thw) for group in pictured]

        def compute(indices: list[int]) -> list[VisionFeatures]:
            features = self.adapter.vision_features(
                torch.cat([patches[i] for i in indices]).to(self.device),
                torch.cat([grids[i] for i in indices]).to(self.device),
            )
            merged = self.adapter.merge_size**2
            return features.split([patches[i].shape[0] // merged for i in indices])

        if self.vision_cache is None:
            return VisionFeatures.concatenate(compute(list(range(len(patches)))))
        return VisionFeatures.concatenate(self.vision_cache.get(patches, compute))

    def _nothing_seen(self) -> VisionFeatures | None:
        """No feature of a small picture: the tower computes, and each of its parameters has a gradient of 0."""
        if self.vision_cache is not None:
            return None
        adapter = self.adapter
        generator = torch.Generator().manual_seed(0)
        # Noise: a norm of rows that are all 0 has a gradient that explodes.
        patches = torch.randn(adapter.merge_size**2, adapter.patch_channels, generator=generator)
        grid = torch.tensor([[1, adapter.merge_size, adapter.merge_size]])
        features = adapter.vision_features(patches.to(self.device), grid.to(self.device))
        nothing, _ = features.split([0, 1])
        return nothing

    def prefill(self, groups: Sequence[PromptGroup], view: View) -> Prefix:
        """Reads each prompt once: one row per group, right-padded to the longest."""
        prompts = self.pad_prompts(groups)
        features = self.vision_features(groups, view)
        embeddings = self.adapter.embed(prompts.ids, prompts.image_slots, features)
        cache = growing_cache(self.adapter.model.config.get_text_config())
        hidden = self.adapter.backbone(
            embeddings,
            prompts.positions,
            prompts.mask,
            image_slots=prompts.image_slots,
            features=features,
            cache=cache,
        )
        last = hidden[torch.arange(len(groups), device=hidden.device), prompts.lengths() - 1]
        return Prefix(
            cache=cache,
            attention_mask=prompts.mask,
            last_hidden=last,
            next_positions=prompts.next_positions,
        )

    def extend(
        self,
        prefix: Prefix,
        token_ids: Int[Tensor, "row token"],
        token_mask: Bool[Tensor, "row token"],
    ) -> Float[Tensor, "row token hidden"]:
        """Reads further tokens on top of a prefix, which moves on in place; returns their hidden states."""
        num_tokens = token_ids.shape[1]
        offsets = torch.arange(num_tokens, device=token_ids.device)
        positions = (prefix.next_positions[:, None] + offsets).expand(3, -1, -1)
        prefix.attention_mask = torch.cat([prefix.attention_mask, token_mask], dim=1)
        if prefix.prompts is not None:
            prefix.prompts = replace(prefix.prompts, own_mask=prefix.attention_mask)
        hidden = self.adapter.backbone(
            self.adapter.token_embeddings(token_ids),
            positions,
            prefix.attention_mask if prefix.prompts is None else None,
            cache=prefix.cache,
            shared_prefix=prefix.prompts,
        )
        prefix.last_hidden = hidden[:, -1]
        prefix.next_positions = prefix.next_positions + num_tokens
        return hidden


def view_patches(group: PromptGroup, view: View) -> Tensor | None:
    """The patches of one view; None for a text-only prompt.

    Raises:
        ValueError: the masked view of a group that no ImageMask has seen.
    """
    if view == "image" or group.patches is None:
        return group.patches
    if group.masked_patches is None:
        raise ValueError(
            f"problem {group.problem.id!r} has images but no masked view; an ImageMask makes it (masking=)"
        )
    return group.masked_patches


def _require(value: Tensor | None) -> Tensor:
    assert value is not None, "a group with patches has a grid"
    return value
