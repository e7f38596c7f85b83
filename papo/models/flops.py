"""Counts the floating-point operations of scoring, from a configuration and lengths alone.

A multiply-add is two operations; norms, activations and rotations are left out, as usual. A backward
pass costs twice its forward pass. Attention counts the pairs a token may look at (causal, exact);
padding counts wherever a backend computes it. What torch's own counter sees of attention on a CPU depends
on its version.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedConfig

from papo.types import PromptGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringShape:
    """The lengths that decide what scoring costs.

    Attributes:
        prompt_lengths: tokens of each prompt.
        response_lengths: tokens of each response, group by group.
        image_grids: (time, height, width) in patches of each image, group by group.
    """

    prompt_lengths: tuple[int, ...]
    response_lengths: tuple[tuple[int, ...], ...]
    image_grids: tuple[tuple[tuple[int, int, int], ...], ...]

    @classmethod
    def of(cls, groups: Sequence[PromptGroup], response_mask: Tensor) -> "ScoringShape":
        """The shape of a call of `Policy.score`."""
        lengths = response_mask.sum(dim=1).tolist()
        num_responses = len(lengths) // len(groups)
        return cls(
            prompt_lengths=tuple(group.prompt_ids.shape[0] for group in groups),
            response_lengths=tuple(
                tuple(lengths[index * num_responses : (index + 1) * num_responses])
                for index in range(len(groups))
            ),
            image_grids=tuple(
                ()
                if group.image_grid_thw is None
                else tuple((t, h, w) for t, h, w in group.image_grid_thw.tolist())
                for group in groups
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringFlops:
    """Operations of one forward pass of one view, by part of the model."""

    vision: int
    prompts: int
    responses: int
    head: int

    @property
    def total(self) -> int:
        return self.vision + self.prompts + self.responses + self.head


def shared_flops(config: PreTrainedConfig, shape: ScoringShape) -> ScoringFlops:
    """Each image and each prompt once, no padding: the least that exact scoring can cost."""
    text = config.get_text_config()
    token, pair = _token_flops(text), _pair_flops(text)
    prompts = sum(token * p + pair * _causal_pairs(p) for p in shape.prompt_lengths)
    responses = 0
    for prompt, lengths in zip(shape.prompt_lengths, shape.response_lengths, strict=True):
        for read in (max(length - 1, 0) for length in lengths):
            responses += token * read + pair * (_causal_pairs(read) + prompt * read)
    return ScoringFlops(
        vision=vision_flops(config, shape),
        prompts=prompts,
        responses=responses,
        head=_head_flops(text, shape),
    )


def padded_flops(
    config: PreTrainedConfig, shape: ScoringShape, *, images_per_response: bool
) -> ScoringFlops:
    """Every response behind its own copy of the prompt, all rows padded to the longest.

    Args:
        config: of the whole model.
        shape: the lengths.
        images_per_response: the vision tower also runs once per response, as where every row brings
            its own picture; the `padded` backend here runs it once per prompt.
    """
    text = config.get_text_config()
    num_rows = sum(len(lengths) for lengths in shape.response_lengths)
    prompt = max(shape.prompt_lengths)
    length = prompt + max(max(lengths) for lengths in shape.response_lengths)
    token, pair = _token_flops(text), _pair_flops(text)
    row = token * length + pair * _causal_pairs(length)
    prompt_part = token * prompt + pair * _causal_pairs(prompt)
    return ScoringFlops(
        vision=sum(
            (len(lengths) if images_per_response else 1) * sum(map(_image_flops(config), grids))
            for lengths, grids in zip(shape.response_lengths, shape.image_grids, strict=True)
        ),
        prompts=num_rows * prompt_part,
        responses=num_rows * (row - prompt_part),
        head=_head_flops(text, shape),
    )


def vision_flops(config: PreTrainedConfig, shape: ScoringShape) -> int:
    """One pass of the vision tower over every image."""
    return sum(map(_image_flops(config), (grid for grids in shape.image_grids for grid in grids)))


def _causal_pairs(length: int) -> int:
    return length * (length + 1) // 2


def _head_flops(text: Any, shape: ScoringShape) -> int:
    tokens = sum(sum(lengths) for lengths in shape.response_lengths)
    return 2 * int(text.hidden_size) * int(text.vocab_size) * tokens


def _token_flops(text: Any) -> int:
    """All linear layers of the language model, for one token."""
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    query = text.num_attention_heads * head_dim
    key = text.num_key_value_heads * head_dim
    attention = text.hidden_size * (2 * query + 2 * key)
    return int(
        2 * text.num_hidden_layers * (attention + 3 * text.hidden_size * text.intermediate_size)
    )


def _pair_flops(text: Any) -> int:
    """Score and value of one query-key pair, all heads and layers."""
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(4 * text.num_attention_heads * head_dim * text.num_hidden_layers)


def _image_flops(config: Any) -> Any:
    """Returns the cost of one image as a function of its grid in patches."""
    vision = config.vision_config
    hidden, merge = vision.hidden_size, vision.spatial_merge_size
    channels = getattr(vision, "in_channels", 3)
    patch = 2 * hidden * channels * vision.temporal_patch_size * vision.patch_size**2
    is_gated = config.model_type == "qwen2_5_vl"
    block = 2 * (4 * hidden**2 + (3 if is_gated else 2) * hidden * vision.intermediate_size)
    merged = hidden * merge**2
    merger = 2 * merged * (merged + vision.out_hidden_size)
    num_mergers = 1 + len(getattr(vision, "deepstack_visual_indexes", ()))
    num_full = len(vision.fullatt_block_indexes) if is_gated else vision.depth

    def cost(grid: tuple[int, int, int]) -> int:
        frames, rows, columns = grid
        patches = frames * rows * columns
        linear = (
            patches * (patch + vision.depth * block) + patches // merge**2 * num_mergers * merger
        )
        full = frames * (rows * columns) ** 2
        attention = num_full * full
        if num_full < vision.depth:
            side = vision.window_size // vision.patch_size
            attention += (
                (vision.depth - num_full)
                * frames
                * sum(
                    (height * width) ** 2
                    for height in _window_sides(rows, side)
                    for width in _window_sides(columns, side)
                )
            )
        return int(linear + 4 * hidden * attention)

    return cost


def _window_sides(length: int, side: int) -> list[int]:
    """Lengths of the windows along one side; the last one is cut."""
    return [min(side, length - start) for start in range(0, length, side)]
