"""Prompts of a prefill behind one another in one row: none is padded, and none needs a mask.

Attention takes those of one length together (papo.models.shared_prefix); only the keys and values that
decoding reads stand side by side, padded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from jaxtyping import Int
from torch import Tensor

from papo.models.merged_attention import ResponseRows
from papo.models.shared_prefix import PrefixBlock, SharedPrefixLayout
from papo.types import PromptGroup


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedPrompts:
    """Where the prompts of some groups stand in one row, on the CPU.

    Attributes:
        order: the groups as they stand in the row.
        ids, positions: of its tokens.
        rows: of each token of each group, in the order of the call; row 0 where there is none.
    """

    order: tuple[int, ...]
    ids: Int[Tensor, " token"]
    positions: Int[Tensor, "axis token"]
    rows: Int[Tensor, "prompt prompt_token"]
    layout: SharedPrefixLayout

    @classmethod
    def of(cls, groups: Sequence[PromptGroup]) -> "PackedPrompts":
        lengths = [group.prompt_ids.shape[0] for group in groups]
        order = sorted(range(len(groups)), key=lambda index: lengths[index])
        rows = torch.zeros(len(groups), max(lengths), dtype=torch.long)
        start, blocks = 0, []
        for length, same in groupby(order, key=lambda index: lengths[index]):
            first, count = start, 0
            for index in same:
                rows[index, :length] = torch.arange(start, start + length)
                start, count = start + length, count + 1
            blocks.append(_prompts_alone(slice(first, start), count))
        return cls(
            order=tuple(order),
            ids=torch.cat([groups[index].prompt_ids for index in order]),
            positions=torch.cat([groups[index].position_ids for index in order], dim=1),
            rows=rows,
            layout=SharedPrefixLayout(blocks=tuple(blocks)),
        )


def worth_packing(groups: Sequence[PromptGroup], device: torch.device) -> bool:
    """Whether padding would cost more than a tenth of the tokens; on a GPU its mask costs the fast kernels.

    Where all prompts are of one length nothing is padded either way.
    """
    lengths = [group.prompt_ids.shape[0] for group in groups]
    padded = len(lengths) * max(lengths)
    return sum(lengths) < (padded if device.type != "cpu" else 0.9 * padded)


def side_by_side(packed: Tensor, rows: Int[Tensor, "prompt prompt_token"]) -> Tensor:
    """Keys or values of one row, [1 kv_head token channel], as [prompt kv_head prompt_token channel]."""
    return packed[0].transpose(0, 1)[rows].transpose(1, 2)


def _prompts_alone(prompts: slice, num_groups: int) -> PrefixBlock:
    return PrefixBlock(
        prompts=prompts,
        responses=slice(prompts.stop, prompts.stop),
        rows=ResponseRows.of(torch.zeros(num_groups, dtype=torch.long), num_groups),
        padded=torch.zeros(0, 0, dtype=torch.long),
        allowed=None,
    )
