"""Prompts and responses in one pass without a cache: each prompt once, its responses behind it.

No token is padding and none is read twice; works with gradient checkpointing.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from papo.models.flex_packing import packed_block_mask
from papo.models.hidden_states import ImageCosines, Places
from papo.models.merged_attention import ResponseRows, has_fused_attention
from papo.models.reader import PromptReader
from papo.models.shared_prefix import PrefixBlock, SharedPrefixLayout
from papo.types import PromptGroup


def split_hidden(
    reader: PromptReader,
    groups: Sequence[PromptGroup],
    response_ids: Int[Tensor, "rollout token"],
    response_mask: Bool[Tensor, "rollout token"],
    *,
    way: Literal["masked", "merged", "flex"] = "masked",
    watch: ImageCosines | None = None,
) -> Float[Tensor, "row hidden"]:
    """Hidden states that predict the response tokens, from one packed row of all groups.

    Response tokens attend to prompt and response at once, under a mask (`masked`), or to either in a
    call of its own (`merged`); with `flex` the whole row attends at once.
    """
    order = sorted(range(len(groups)), key=lambda index: groups[index].prompt_ids.shape[0])
    ordered = [groups[index] for index in order]
    row = _PackedRow(
        response_ids.cpu(), response_mask.cpu(), len(groups), with_masks=way == "masked"
    )
    for _, block in groupby(order, key=lambda index: groups[index].prompt_ids.shape[0]):
        indices = list(block)
        row.add([groups[index] for index in indices], indices)
    device, adapter = reader.device, reader.adapter
    ids, is_prompt = torch.cat(row.ids), torch.cat(row.is_prompt)
    image_slots = ((ids == adapter.image_token_id) & is_prompt)[None].to(device)
    features = reader.vision_features(ordered)
    block_mask = None
    if way == "flex":
        owners = (torch.cat(row.owners).to(device), torch.cat(row.continues).to(device))
        block_mask = packed_block_mask(*owners)
    if watch is not None:
        watch.places = _places(row, order, groups, image_slots[0], adapter.image_token_id)
    hidden = adapter.backbone(
        adapter.embed(ids[None].to(device), image_slots, features),
        torch.cat(row.positions, dim=1)[:, None].to(device),
        None,
        image_slots=image_slots,
        features=features,
        shared_prefix=SharedPrefixLayout(
            blocks=tuple(_to(block, device) for block in row.blocks), block_mask=block_mask
        ),
    )
    return hidden[0].index_select(0, row.predictors[row.mask].to(device))


def flex_hidden(
    reader: PromptReader,
    groups: Sequence[PromptGroup],
    response_ids: Int[Tensor, "rollout token"],
    response_mask: Bool[Tensor, "rollout token"],
    *,
    watch: ImageCosines | None = None,
) -> Float[Tensor, "row hidden"]:
    """As `split_hidden`, with FlexAttention.

    Raises:
        ValueError: gradient is needed on a CPU, for which FlexAttention has no backward pass.
    """
    if torch.is_grad_enabled() and reader.device.type == "cpu":
        raise ValueError(
            "FlexAttention has no backward pass on a CPU; got model.scoring=flex. Set "
            "model.scoring=auto, or use a GPU."
        )
    return split_hidden(reader, groups, response_ids, response_mask, way="flex", watch=watch)


def merged_hidden(
    reader: PromptReader,
    groups: Sequence[PromptGroup],
    response_ids: Int[Tensor, "rollout token"],
    response_mask: Bool[Tensor, "rollout token"],
    *,
    watch: ImageCosines | None = None,
) -> Float[Tensor, "row hidden"]:
    """As `split_hidden`, with two fused calls whose results are merged.

    Raises:
        ValueError: the device has no kernel for this precision.
    """
    precision = reader.pass_precision
    if not has_fused_attention(reader.device, precision, reader.adapter.head_channels):
        raise ValueError(
            "merged scoring needs a kernel that returns the log-sum-exp: on a GPU one for half precision; got "
            f"{precision} on {reader.device}. Set model.scoring=auto (or trainer.precision=bf16-mixed)."
        )
    return split_hidden(reader, groups, response_ids, response_mask, way="merged", watch=watch)


def _places(
    row: "_PackedRow",
    order: Sequence[int],
    groups: Sequence[PromptGroup],
    image_slots: Bool[Tensor, " row"],
    image_token_id: int,
) -> Places:
    """Of the packed row, in which the prompts of groups stand in this order, each with its image tokens."""
    is_read, device = row.mask[:, :-1] & row.mask[:, 1:], image_slots.device
    counts = [int((groups[index].prompt_ids == image_token_id).sum()) for index in order]
    return Places(
        # What predicts a token is the one before it.
        responses=row.predictors[:, 1:][is_read].to(device),
        prompts=is_read.nonzero()[:, 0].to(device) // row.num_responses,
        images=image_slots.nonzero()[:, 0],
        image_prompts=torch.tensor(order).repeat_interleave(torch.tensor(counts)).to(device),
        num_prompts=len(order),
    )


class _PackedRow:
    """Builds the packed row block by block, on the CPU.

    Attributes:
        predictors: for each response token the row whose hidden state predicts it.
        owners, continues: as `packed_block_mask` reads them.
    """

    def __init__(
        self,
        response_ids: Int[Tensor, "rollout token"],
        response_mask: Bool[Tensor, "rollout token"],
        num_groups: int,
        *,
        with_masks: bool,
    ) -> None:
        self.with_masks = with_masks
        self.response_ids = response_ids
        self.mask = response_mask
        # The hidden state of token t predicts token t+1, so the last token is never read.
        self.num_read = (response_mask.sum(dim=1) - 1).clamp(min=0)
        self.num_responses = response_ids.shape[0] // num_groups
        self.predictors = torch.zeros_like(response_ids)
        self.length = 0
        self.ids: list[Tensor] = []
        self.positions: list[Tensor] = []
        self.is_prompt: list[Tensor] = []
        self.blocks: list[PrefixBlock] = []
        self.owners: list[Tensor] = []
        self.continues: list[Tensor] = []
        self.num_owners = 0

    def add(self, groups: Sequence[PromptGroup], indices: Sequence[int]) -> None:
        """Appends groups whose prompts have one length; `indices` are their places in the call."""
        prompt_length = groups[0].prompt_ids.shape[0]
        first_response = self.length + len(groups) * prompt_length
        rollouts = (
            torch.tensor(indices)[:, None] * self.num_responses + torch.arange(self.num_responses)
        ).flatten()
        num_read = self.num_read[rollouts]
        rows = ResponseRows.of(num_read, len(groups))
        num_tokens = rows.longest_response
        offsets = torch.arange(num_tokens)
        is_read = offsets < num_read[:, None]
        starts = num_read.cumsum(0) - num_read
        num_rows = int(num_read.sum())
        padded = torch.where(is_read, starts[:, None] + offsets, 0)

        last_prompt_rows = self.length + prompt_length * torch.arange(1, len(groups) + 1) - 1
        self.predictors[rollouts, 0] = last_prompt_rows.repeat_interleave(self.num_responses)
        self.predictors[rollouts, 1 : num_tokens + 1] = first_response + padded
        next_positions = torch.tensor([group.next_position for group in groups])
        positions = next_positions.repeat_interleave(self.num_responses)[:, None] + offsets
        self.ids += [
            *(group.prompt_ids for group in groups),
            self.response_ids[rollouts, :num_tokens][is_read],
        ]
        self.positions += [
            *(group.position_ids for group in groups),
            positions[is_read].expand(groups[0].position_ids.shape[0], -1),
        ]
        self.is_prompt += [
            torch.ones(len(groups) * prompt_length, dtype=torch.bool),
            torch.zeros(num_rows, dtype=torch.bool),
        ]
        self.blocks.append(
            PrefixBlock(
                prompts=slice(self.length, first_response),
                responses=slice(first_response, first_response + num_rows),
                rows=rows,
                padded=padded,
                allowed=torch.ones(num_tokens, prompt_length + num_tokens, dtype=torch.bool).tril(
                    prompt_length
                )
                if self.with_masks
                else None,
            )
        )
        self._add_owners(len(groups), prompt_length, num_read)
        self.length = first_response + num_rows

    def _add_owners(self, num_groups: int, prompt_length: int, num_read: Tensor) -> None:
        prompts = self.num_owners + torch.arange(num_groups)
        responses = self.num_owners + num_groups + torch.arange(num_read.shape[0])
        own = prompts.repeat_interleave(prompt_length)
        self.owners += [own, responses.repeat_interleave(num_read)]
        self.continues += [
            torch.full_like(own, -1),
            prompts.repeat_interleave(self.num_responses).repeat_interleave(num_read),
        ]
        self.num_owners += num_groups + num_read.shape[0]


def _to(block: PrefixBlock, device: torch.device) -> PrefixBlock:
    return PrefixBlock(
        prompts=block.prompts,
        responses=block.responses,
        rows=block.rows.to(device),
        padded=block.padded.to(device),
        allowed=None if block.allowed is None else block.allowed.to(device),
    )
