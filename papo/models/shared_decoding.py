r"""Attention while decoding: several rows continue one prompt, whose keys are held and read once.

A copy of the prompt for each of the G responses would make the cache G times as large, and reading
it is what decoding waits for. What a row has read itself stands in buffers with spare room.

    the queries of the rows of one prompt        its keys, once           own keys, a buffer a row
    row 0 (head 0, head 1)  \                                              row 0: k0 k1 k2 . . .
    row 1 (head 0, head 1)   >  one product  @  [prompt tokens]    and     row 1: k0 k1 k2 . . .
    row 2 (head 0, head 1)  /                                              row 2: k0 k1 -  . . .

    scores of both side by side, plus `bias` (-inf at padding, at `-` after an end, at spare room `.`),
    one softmax; the weights then meet the prompt's values in one product, and a row's own in another
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from papo.models.recurrent_decoding import RowStates

SPARE_TOKENS = 128
"""Buffers grow by so many tokens."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SharedPrompts:
    """Keys and values of prompts, and which rows continue which of them.

    Attributes:
        keys: of the prompt tokens, per layer.
        values: likewise.
        slots: the rows that continue each prompt; any row where a prompt has fewer than others.
        places: where each row stands in `slots`, flattened.
        in_order: every prompt has equally many rows, one after the other.
    """

    keys: tuple[Float[Tensor, "prompt kv_head prompt_token channel"], ...]
    values: tuple[Float[Tensor, "prompt kv_head prompt_token channel"], ...]
    slots: Int[Tensor, "prompt slot"]
    places: Int[Tensor, " row"]
    in_order: bool

    @classmethod
    def expanded(
        cls, keys: Sequence[Tensor], values: Sequence[Tensor], num_responses: int
    ) -> "SharedPrompts":
        """Each prompt continued by `num_responses` contiguous rows that have no token yet."""
        num_prompts = keys[0].shape[0]
        rows = torch.arange(num_prompts * num_responses, device=keys[0].device)
        return cls(
            keys=tuple(keys),
            values=tuple(values),
            slots=rows.view(num_prompts, num_responses),
            places=rows,
            in_order=True,
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
        all_used = used.shape[0] == self.slots.shape[0]
        return SharedPrompts(
            keys=self.keys if all_used else tuple(layer[used] for layer in self.keys),
            values=self.values if all_used else tuple(layer[used] for layer in self.values),
            slots=slots.scatter(0, places, index).view(-1, num_slots),
            places=places,
            in_order=False,
        )


@dataclass(slots=True, kw_only=True, eq=False)
class OwnTokens:
    """What each row has read beyond its prompt; written in place, one token of every row at a time.

    Attributes:
        keys: per layer, with spare room behind `length` tokens; 0 there, so that nothing is NaN.
        values: likewise.
        bias: 0 where a row attends to a token of its prompt or of its own, -inf elsewhere.
        states: of the layers that are recurrent, in their order; the prompt is in them.
        length: tokens read.
        position: the same number, on the device.
        replayed: a step recorded for these very buffers (papo.models.cuda_graph).
    """

    keys: list[Float[Tensor, "row kv_head room channel"]]
    values: list[Float[Tensor, "row kv_head room channel"]]
    bias: Float[Tensor, "row key"]
    length: int
    position: Int[Tensor, "1"]
    states: tuple[RowStates, ...] = ()
    replayed: Callable[..., Tensor] | None = None

    @classmethod
    def none_yet(
        cls,
        prompts: SharedPrompts,
        mask: Bool[Tensor, "row prompt_token"],
        states: tuple[RowStates, ...] = (),
    ) -> "OwnTokens":
        """For rows whose prompts have a token where `mask` is True."""
        num_rows, some = mask.shape[0], prompts.values[0]
        bias = torch.zeros(mask.shape, dtype=some.dtype, device=some.device)
        empty = some.new_empty(num_rows, some.shape[1], 0, some.shape[3])
        return cls(
            keys=[empty] * len(prompts.keys),
            values=[empty] * len(prompts.keys),
            bias=bias.masked_fill_(~mask, -torch.inf),
            length=0,
            position=torch.zeros(1, dtype=torch.long, device=some.device),
            states=states,
        )

    @property
    def room(self) -> int:
        return self.keys[0].shape[2]

    def grow(self) -> None:
        """Makes room for further tokens."""
        self.replayed = None
        more = (0, 0, 0, SPARE_TOKENS)
        self.keys = [pad(layer, more) for layer in self.keys]
        self.values = [pad(layer, more) for layer in self.values]
        self.bias = pad(self.bias, (0, SPARE_TOKENS), value=-torch.inf)

    def select(self, rows: Int[Tensor, " kept"]) -> "OwnTokens":
        return OwnTokens(
            keys=[layer[rows] for layer in self.keys],
            values=[layer[rows] for layer in self.values],
            bias=self.bias[rows],
            length=self.length,
            position=self.position,
            states=tuple(each.select(rows) for each in self.states),
        )

    @property
    def can_forget(self) -> bool:
        """A state does not say what it was before a token."""
        return not self.states

    def forget(self, num_tokens: int) -> None:
        """The last tokens of every row were never read."""
        assert self.can_forget
        self.length -= num_tokens
        self.position -= num_tokens
        self.bias[:, self.bias.shape[1] - self.room + self.length :] = -torch.inf


def shared_decoding_attention(
    queries: Float[Tensor, "row kv_head head channel"],
    key: Float[Tensor, "row kv_head token channel"],
    value: Float[Tensor, "row kv_head token channel"],
    *,
    bias: Float[Tensor, "row key"],
    prompts: SharedPrompts,
    layer: int,
) -> Float[Tensor, "row channel_of_heads"]:
    """softmax(q k + bias) v over the keys of the row's prompt and its own; one scaled query per row.

    Exact: one softmax over both kinds of keys. The queries of all rows of a prompt meet its keys in
    one matrix product (the split of Hydragen, arXiv:2402.05099, without its merge of two softmaxes).
    """
    num_prompts, num_slots = prompts.slots.shape

    def by_prompt(rows: Tensor) -> Tensor:  # [prompt kv_head slot*head ...]
        if not prompts.in_order:
            rows = rows.index_select(0, prompts.slots.flatten())
        return rows.unflatten(0, (num_prompts, num_slots)).transpose(1, 2).flatten(2, 3)

    def by_row(
        slotted: Tensor,
    ) -> Tensor:  # [prompt slot kv_head head ...] or [row kv_head head ...]
        slots = slotted.unflatten(2, (num_slots, -1)).transpose(1, 2)
        return slots if prompts.in_order else slots.flatten(0, 1).index_select(0, prompts.places)

    def alike(rows: Tensor) -> Tensor:  # in the shape of `by_row`
        return rows.unflatten(0, (num_prompts, num_slots)) if prompts.in_order else rows

    prompt_scores = by_prompt(queries) @ prompts.keys[layer].transpose(2, 3)
    scores = torch.cat([by_row(prompt_scores), alike(queries @ key.transpose(2, 3))], dim=-1)
    scores = scores.view(*queries.shape[:3], -1).add_(bias[:, None, None])
    weights = scores.softmax(dim=3, dtype=torch.promote_types(scores.dtype, torch.float32))
    weights = weights.to(value.dtype)
    num_own = key.shape[2]
    attended = alike(weights[..., -num_own:] @ value)
    attended = attended + by_row(by_prompt(weights[..., :-num_own]) @ prompts.values[layer])
    return attended.reshape(queries.shape[0], -1)
