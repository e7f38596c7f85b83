"""Attention while decoding: several rows continue one prompt, whose keys are held and read once.

A copy of the prompt for each of the G responses would make the cache G times as large, and reading
it is what decoding waits for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SharedPrompts:
    """Keys and values of prompts, and which rows continue which of them.

    Attributes:
        keys: of the prompt tokens, per layer.
        values: likewise.
        mask: True where a prompt has a token.
        own_mask: True where a row has a token of its own in the cache, the one being read included.
        slots: the rows that continue each prompt; any row where a prompt has fewer than others.
        places: where each row stands in `slots`, flattened.
    """

    keys: tuple[Float[Tensor, "prompt kv_head prompt_token channel"], ...]
    values: tuple[Float[Tensor, "prompt kv_head prompt_token channel"], ...]
    mask: Bool[Tensor, "prompt prompt_token"]
    own_mask: Bool[Tensor, "row token"]
    slots: Int[Tensor, "prompt slot"]
    places: Int[Tensor, " row"]

    @classmethod
    def expanded(
        cls,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        mask: Bool[Tensor, "prompt prompt_token"],
        num_responses: int,
    ) -> "SharedPrompts":
        """Each prompt continued by `num_responses` contiguous rows that have no token yet."""
        num_rows = mask.shape[0] * num_responses
        rows = torch.arange(num_rows, device=mask.device)
        return cls(
            keys=tuple(keys),
            values=tuple(values),
            mask=mask,
            own_mask=mask.new_zeros(num_rows, 0),
            slots=rows.view(mask.shape[0], num_responses),
            places=rows,
        )

    def select(self, rows: Int[Tensor, " kept"]) -> "SharedPrompts":
        """Keeps some rows, in their order, and the prompts that they continue."""
        prompt_of_row = self.places[rows] // self.slots.shape[1]
        used, prompt_of_row, counts = prompt_of_row.unique(return_inverse=True, return_counts=True)
        starts = counts.cumsum(0) - counts
        index = torch.arange(rows.shape[0], device=rows.device)
        num_slots = int(counts.max())
        places = prompt_of_row * num_slots + index - starts[prompt_of_row]
        slots = torch.zeros(used.shape[0] * num_slots, dtype=torch.long, device=rows.device)
        all_used = used.shape[0] == self.mask.shape[0]
        return SharedPrompts(
            keys=self.keys if all_used else tuple(layer[used] for layer in self.keys),
            values=self.values if all_used else tuple(layer[used] for layer in self.values),
            mask=self.mask[used],
            own_mask=self.own_mask[rows],
            slots=slots.scatter(0, places, index).view(-1, num_slots),
            places=places,
        )


def shared_decoding_attention(
    query: Float[Tensor, "row head 1 channel"],
    key: Float[Tensor, "row kv_head token channel"],
    value: Float[Tensor, "row kv_head token channel"],
    *,
    prompts: SharedPrompts,
    layer: int,
    scaling: float,
) -> Float[Tensor, "row 1 head channel"]:
    """softmax(scaling * q k) v over the keys of the row's prompt and its own; one query per row.

    Exact: one softmax over both kinds of keys. The queries of all rows of a prompt meet its keys in
    one matrix product (the split of Hydragen, arXiv:2402.05099, without its merge of two softmaxes).
    """
    num_prompts, num_slots = prompts.slots.shape
    queries = (
        query.unflatten(1, (key.shape[1], -1)).squeeze(3) * scaling
    )  # [row kv_head head channel]

    def by_prompt(rows: Tensor) -> Tensor:  # [prompt kv_head slot*head ...]
        slotted = rows.index_select(0, prompts.slots.flatten())
        return slotted.unflatten(0, (num_prompts, num_slots)).transpose(1, 2).flatten(2, 3)

    def by_row(slotted: Tensor) -> Tensor:  # [row kv_head head ...]
        rows = slotted.unflatten(2, (num_slots, -1)).transpose(1, 2).flatten(0, 1)
        return rows.index_select(0, prompts.places)

    prompt_scores = by_prompt(queries) @ prompts.keys[layer].transpose(2, 3)
    prompt_scores = prompt_scores.masked_fill(~prompts.mask[:, None, None], -torch.inf)
    own_scores = queries @ key.transpose(2, 3)
    own_scores = own_scores.masked_fill(~prompts.own_mask[:, None, None], -torch.inf)
    scores = torch.cat([by_row(prompt_scores), own_scores], dim=3)
    weights = scores.softmax(dim=3, dtype=torch.promote_types(scores.dtype, torch.float32))
    weights = weights.to(value.dtype)
    num_own = key.shape[2]
    attended = weights[..., -num_own:] @ value
    attended = attended + by_row(by_prompt(weights[..., :-num_own]) @ prompts.values[layer])
    return attended.flatten(1, 2)[:, None]
