"""Reads prompts: padding them side by side, their vision features, the cached prefix and its growth."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from papo.functional import HeadPrecision
from papo.models.decode_step import Decoding, can_decode
from papo.models.decode_weights import Projection, in_order, product_dtype
from papo.models.families import FamilyAdapter, VisionFeatures
from papo.models.packed_prompts import PackedPrompts, side_by_side, worth_packing
from papo.models.pixel_levels import PixelLevels
from papo.models.recurrent_decoding import RowStates
from papo.models.recurrent_state import RecurrentLayer, has_recurrence
from papo.models.shared_decoding import OwnTokens, SharedPrompts
from papo.models.vision_cache import VisionFeatureCache
from papo.types import PromptGroup


@dataclass(slots=True, kw_only=True, eq=False)
class Prefix:
    """Prompts read once, ready to be continued: one row per prompt, or per response when expanded.

    Attributes:
        cache: keys and values of what each row has read; None where prompts are shared.
        attention_mask: True where a prompt, or the cache of a row, holds a real token.
        last_hidden: hidden state that predicts the next token of each row.
        next_positions: position of the next token of each row.
        prompts: what several rows share, if they do.
        own: what each of these rows has read beyond it.
        can_share: whether rows may share prompts.
    """

    cache: DynamicCache | None
    attention_mask: Bool[Tensor, "row key"]
    last_hidden: Float[Tensor, "row hidden"]
    next_positions: Int[Tensor, " row"]
    prompts: SharedPrompts | None = None
    own: OwnTokens | None = None
    can_share: bool = True

    def expand(self, num_responses: int) -> "Prefix":
        """Repeats every row `num_responses` times, contiguously; gradient flows into the prompt."""
        assert self.cache is not None
        self.cache.batch_repeat_interleave(num_responses)
        return Prefix(
            cache=self.cache,
            attention_mask=self.attention_mask.repeat_interleave(num_responses, dim=0),
            last_hidden=self.last_hidden.repeat_interleave(num_responses, dim=0),
            next_positions=self.next_positions.repeat_interleave(num_responses),
        )

    def share(self, num_responses: int) -> "Prefix":
        """As `expand`, to be continued token by token, without a copy of the prompt per row. Uses this up.

        Models whose layers see only a window are expanded: their cache forgets. States of linear attention are
        repeated: every row writes its own.
        """
        assert self.cache is not None
        layers = cast(list[Any], self.cache.layers)
        if not self.can_share or any(
            type(each) not in (DynamicLayer, RecurrentLayer) for each in layers
        ):
            return self.expand(num_responses)
        keys, values, states = [], [], []
        for layer in layers:
            if isinstance(layer, RecurrentLayer):
                layer.batch_repeat_interleave(num_responses)
                states.append(RowStates(conv=layer.conv, recurrent=layer.recurrent))
                continue
            # Under autocast rotated keys are wide, and with transformers 5.23 values beside them; every product
            # would narrow all of them.
            dtype = product_dtype(layer.values)
            keys.append(layer.keys.to(dtype).contiguous())
            values.append(layer.values.to(dtype).contiguous())
            layer.keys = layer.values = None
        prompts = SharedPrompts.expanded(keys, values, num_responses)
        mask = self.attention_mask.repeat_interleave(num_responses, dim=0)
        return Prefix(
            cache=None,
            attention_mask=mask,
            last_hidden=self.last_hidden.repeat_interleave(num_responses, dim=0),
            next_positions=self.next_positions.repeat_interleave(num_responses),
            prompts=prompts,
            own=OwnTokens.none_yet(prompts, mask, tuple(states)),
        )

    def select(self, rows: Int[Tensor, " kept"]) -> "Prefix":
        """Keeps the given rows only."""
        if self.cache is not None:
            self.cache.batch_select_indices(rows)
        return Prefix(
            cache=self.cache,
            attention_mask=self.attention_mask[rows],
            last_hidden=self.last_hidden[rows],
            next_positions=self.next_positions[rows],
            prompts=None if self.prompts is None else self.prompts.select(rows),
            own=None if self.own is None else self.own.select(rows),
        )

    @property
    def can_forget(self) -> bool:
        return self.own is not None and self.own.can_forget

    def forget(self, num_tokens: int, last_hidden: Float[Tensor, "row hidden"]) -> None:
        """The last tokens of rows that share prompts were never read; `last_hidden` was before them."""
        assert self.own is not None
        self.own.forget(num_tokens)
        self.next_positions -= num_tokens
        self.last_hidden = last_hidden


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PaddedPrompts:
    """Prompts side by side, padded on the right; on the left where padding behind them would move a state.

    Attributes:
        ends: of each prompt, the place of its last token.
    """

    ids: Int[Tensor, "prompt prompt_token"]
    mask: Bool[Tensor, "prompt prompt_token"]
    image_slots: Bool[Tensor, "prompt prompt_token"]
    positions: Int[Tensor, "axis prompt prompt_token"]
    next_positions: Int[Tensor, " prompt"]
    ends: Int[Tensor, " prompt"]


class PromptReader:
    """What sampling and every scoring backend share: prompts and their images into hidden states.

    Args:
        adapter: of the model that reads.
        vision_cache: features of a frozen tower, shared by all readers with that tower; None where
            the tower is trained.
        levels: unpack patches that are held packed.

    Attributes:
        passes_alike: every pass calls every layer of a trained tower and of the decoder equally often.
        decoding: what many single tokens are read with (`decode_many`).
    """

    def __init__(
        self,
        adapter: FamilyAdapter,
        vision_cache: VisionFeatureCache | None,
        levels: PixelLevels,
    ) -> None:
        self.adapter = adapter
        self.levels = levels
        self.vision_cache = vision_cache
        self.is_recurrent = has_recurrence(adapter.model.config)
        self.passes_alike = False
        self.decoding: Decoding | None = None

    @property
    def device(self) -> torch.device:
        return self.adapter.head_weight.device

    @contextmanager
    def decode_many(self, static: bool) -> Iterator[None]:
        """Within, weights do not change: what single tokens are read with is prepared once."""
        self.decoding = Decoding(self.adapter, static=static)
        try:
            yield
        finally:
            self.decoding = None

    def head_logits(
        self, hidden: Float[Tensor, "row hidden"], precision: HeadPrecision
    ) -> Float[Tensor, "row vocab"]:
        """What the head says of hidden states, before anything is done to it. Call it outside autocast."""
        operand = precision.operand(hidden)
        if self.decoding is None:
            return precision.matmul(operand, precision.operand(self.adapter.head_weight).t())
        if self.decoding.head is None:
            weight = in_order(precision.operand(self.adapter.head_weight))
            self.decoding.head = Projection(weight=weight, bias=None)
        if operand.dtype == precision.sums:
            return self.decoding.head(operand)
        return precision.matmul(operand, self.decoding.head.weight.t())

    @property
    def pass_precision(self) -> torch.dtype:
        """What attention computes in now."""
        if torch.is_autocast_enabled(self.device.type):
            return torch.get_autocast_dtype(self.device.type)
        return self.adapter.head_weight.dtype

    def pad_prompts(self, groups: Sequence[PromptGroup]) -> PaddedPrompts:
        longest = max(group.prompt_ids.shape[0] for group in groups)
        ids = torch.zeros(len(groups), longest, dtype=torch.long)
        mask = torch.zeros(len(groups), longest, dtype=torch.bool)
        axes = self.adapter.position_axes
        positions = torch.zeros(axes, len(groups), longest, dtype=torch.long)
        lengths = torch.tensor([group.prompt_ids.shape[0] for group in groups])
        ends = torch.full_like(lengths, longest) if self.is_recurrent else lengths
        for row, (group, length, end) in enumerate(
            zip(groups, lengths.tolist(), ends.tolist(), strict=True)
        ):
            place = slice(end - length, end)
            ids[row, place] = group.prompt_ids
            mask[row, place] = True
            positions[:, row, place] = group.position_ids
        next_positions = torch.tensor([group.next_position for group in groups])
        slots = (ids == self.adapter.image_token_id) & mask
        device = self.device
        return PaddedPrompts(
            ids=ids.to(device),
            mask=mask.to(device),
            image_slots=slots.to(device),
            positions=positions.to(device),
            next_positions=next_positions.to(device),
            ends=ends.to(device) - 1,
        )

    @contextmanager
    def remembering_nothing(self) -> Iterator[None]:
        """Within, what is known of pictures is read, and what is found out is not kept."""
        cache = self.vision_cache
        self.vision_cache = None if cache is None else cache.copy()
        try:
            yield
        finally:
            self.vision_cache = cache

    def vision_features(self, groups: Sequence[PromptGroup]) -> VisionFeatures | None:
        """The images of all groups, in order: at most one call of the tower, each image in it once."""
        pictured = [group for group in groups if group.patches is not None]
        if not pictured:
            return self._nothing_seen() if self.passes_alike else None
        patches = [group.patches for group in pictured if group.patches is not None]

        def compute(indices: list[int]) -> list[VisionFeatures]:
            features = self.adapter.vision_features(
                self.levels.unpacked([patches[i] for i in indices], self.device),
                [picture for i in indices for picture in pictured[i].pictures],
            )
            return features.split(
                [sum(each.num_tokens for each in pictured[i].pictures) for i in indices]
            )

        if self.vision_cache is None:
            return VisionFeatures.concatenate(compute(list(range(len(patches)))))
        return VisionFeatures.concatenate(self.vision_cache.get(patches, compute))

    def _nothing_seen(self) -> VisionFeatures | None:
        """No feature of a small picture: the tower computes, and each of its parameters has a gradient of 0."""
        if self.vision_cache is not None:
            return None
        config = self.adapter.model.config
        picture = self.adapter.smallest_picture(config)
        channels = self.adapter.patch_channels(config)
        generator = torch.Generator().manual_seed(0)
        # Noise: a norm of rows that are all 0 has a gradient that explodes.
        patches = torch.randn(picture.num_patches, channels, generator=generator)
        features = self.adapter.vision_features(patches.to(self.device), [picture])
        nothing, _ = features.split([0, picture.num_tokens])
        return nothing

    def prefill(self, groups: Sequence[PromptGroup]) -> Prefix:
        """Reads each prompt once: one row per group, padded to the longest."""
        packs = self.adapter.packs and worth_packing(groups, self.device)
        if torch.is_grad_enabled() or not packs:
            return self._prefill_padded(groups)
        packed, device = PackedPrompts.of(groups), self.device
        image_slots = (packed.ids == self.adapter.image_token_id)[None].to(device)
        features = self.vision_features([groups[index] for index in packed.order])
        cache = self.adapter.new_cache()
        hidden = self.adapter.backbone(
            self.adapter.embed(packed.ids[None].to(device), image_slots, features),
            packed.positions[:, None].to(device),
            None,
            image_slots=image_slots,
            features=features,
            cache=cache,
            shared_prefix=packed.layout,
        )
        lengths = torch.tensor([group.prompt_ids.shape[0] for group in groups])
        rows = packed.rows.to(device)
        for layer in cast(list[Any], cache.layers):
            if isinstance(layer, RecurrentLayer):
                layer.batch_select_indices(torch.tensor(packed.order, device=device).argsort())
                continue
            layer.keys = side_by_side(layer.keys, rows)
            layer.values = side_by_side(layer.values, rows)
        last = packed.rows[torch.arange(len(groups)), lengths - 1]
        return Prefix(
            cache=cache,
            attention_mask=(torch.arange(rows.shape[1]) < lengths[:, None]).to(device),
            last_hidden=hidden[0].index_select(0, last.to(device)),
            next_positions=torch.tensor([group.next_position for group in groups], device=device),
            can_share=self.adapter.packs and can_decode(self.adapter.language_model),
        )

    def _prefill_padded(self, groups: Sequence[PromptGroup]) -> Prefix:
        prompts = self.pad_prompts(groups)
        features = self.vision_features(groups)
        embeddings = self.adapter.embed(prompts.ids, prompts.image_slots, features)
        cache = self.adapter.new_cache()
        hidden = self.adapter.backbone(
            embeddings,
            prompts.positions,
            prompts.mask,
            image_slots=prompts.image_slots,
            features=features,
            cache=cache,
        )
        last = hidden[torch.arange(len(groups), device=hidden.device), prompts.ends]
        return Prefix(
            cache=cache,
            attention_mask=prompts.mask,
            last_hidden=last,
            next_positions=prompts.next_positions,
            can_share=self.adapter.packs and can_decode(self.adapter.language_model),
        )

    def extend(
        self,
        prefix: Prefix,
        token_ids: Int[Tensor, "row token"],
        token_mask: Bool[Tensor, "row token"],
    ) -> Float[Tensor, "row token hidden"]:
        """Reads further tokens on top of a prefix, which moves on in place; returns their hidden states.

        One at a time where rows share prompts.
        """
        if prefix.own is not None and prefix.prompts is not None:
            decoding = self.decoding or Decoding(self.adapter, static=False)
            prefix.last_hidden = decoding.step(
                prefix.own,
                prefix.prompts,
                prefix.next_positions,
                token_ids[:, 0],
                token_mask[:, 0],
            )
            return prefix.last_hidden[:, None]
        num_tokens = token_ids.shape[1]
        positions = self.positions_from(prefix.next_positions, num_tokens)
        prefix.attention_mask = torch.cat([prefix.attention_mask, token_mask], dim=1)
        hidden = self.adapter.backbone(
            self.adapter.token_embeddings(token_ids),
            positions,
            prefix.attention_mask,
            cache=prefix.cache,
        )
        prefix.last_hidden = hidden[:, -1]
        prefix.next_positions = prefix.next_positions + num_tokens
        return hidden

    def positions_from(
        self, next_positions: Int[Tensor, " row"], num_tokens: int
    ) -> Int[Tensor, "axis row token"]:
        """Positions of so many tokens after those of each row, the same on all axes."""
        offsets = torch.arange(num_tokens, device=next_positions.device)
        return (next_positions[:, None] + offsets).expand(self.adapter.position_axes, -1, -1)
