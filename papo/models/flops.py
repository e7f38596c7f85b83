"""Counts the floating-point operations of scoring, from a configuration and lengths alone.

A multiply-add is two operations; norms, activations and rotations are left out, as usual. A backward
pass costs twice its forward pass. Attention counts the pairs a token may look at (causal, exact);
padding counts wherever a backend computes it. What torch's own counter sees of attention on a CPU depends
on its version.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool
from torch import Tensor
from transformers import PreTrainedConfig

from papo.models.families import family_of
from papo.types import PictureLayout, PromptGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringShape:
    """The lengths that decide what scoring costs.

    Attributes:
        prompt_lengths: tokens of each prompt.
        response_lengths: tokens of each response, group by group.
        pictures: how each image lies in patches, group by group.
    """

    prompt_lengths: tuple[int, ...]
    response_lengths: tuple[tuple[int, ...], ...]
    pictures: tuple[tuple[PictureLayout, ...], ...]

    @classmethod
    def of(
        cls, groups: Sequence[PromptGroup], response_mask: Bool[Tensor, "rollout token"]
    ) -> "ScoringShape":
        """The shape of a call of `Policy.score`."""
        lengths = response_mask.sum(dim=1).tolist()
        num_responses = len(lengths) // len(groups)
        return cls(
            prompt_lengths=tuple(group.prompt_ids.shape[0] for group in groups),
            response_lengths=tuple(
                tuple(lengths[index * num_responses : (index + 1) * num_responses])
                for index in range(len(groups))
            ),
            pictures=tuple(group.pictures for group in groups),
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
    """Each image and each prompt once, no padding: the least that exact scoring can cost.

    Linear attention reads responses side by side, those of prompts of one length padded to the longest.
    """
    text = config.get_text_config()
    token, pair = _token_flops(text), _pair_flops(text)
    prompts = sum(token * p + pair * _causal_pairs(p) for p in shape.prompt_lengths)
    responses = 0
    for prompt, lengths in zip(shape.prompt_lengths, shape.response_lengths, strict=True):
        for read in (max(length - 1, 0) for length in lengths):
            responses += token * read + pair * (_causal_pairs(read) + prompt * read)
    responses += _recurrent_layers(text) * _padding_side_by_side(shape)
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
            (len(lengths) if images_per_response else 1) * _pictures_flops(config, pictures)
            for lengths, pictures in zip(shape.response_lengths, shape.pictures, strict=True)
        ),
        prompts=num_rows * prompt_part,
        responses=num_rows * (row - prompt_part),
        head=_head_flops(text, shape),
    )


def vision_flops(config: PreTrainedConfig, shape: ScoringShape) -> int:
    """One pass of the vision tower over every image."""
    return sum(_pictures_flops(config, pictures) for pictures in shape.pictures)


def _pictures_flops(config: PreTrainedConfig, pictures: Sequence[PictureLayout]) -> int:
    adapter = family_of(config).adapter
    return sum(adapter.vision_flops(config, picture) for picture in pictures)


def _causal_pairs(length: int) -> int:
    return length * (length + 1) // 2


def _head_flops(text: Any, shape: ScoringShape) -> int:
    tokens = sum(sum(lengths) for lengths in shape.response_lengths)
    return 2 * int(text.hidden_size) * int(text.vocab_size) * tokens


def _token_flops(text: Any) -> int:
    """All linear layers of the language model, for one token, and the states of linear attention."""
    types = _layer_types(text)
    attention = sum(map(_attention_flops, attending_layers(text)))
    mlps = len(types) * 6 * text.hidden_size * text.intermediate_size
    return int(attention + _recurrent_layers(text) + mlps)


def _attention_flops(text: Any) -> int:
    query = text.num_attention_heads * head_channels(text)
    key = text.num_key_value_heads * head_channels(text)
    gate = query if "linear_attention" in _layer_types(text) else 0  # of what was attended
    return int(2 * text.hidden_size * (2 * query + gate + 2 * key))


def _recurrent_layers(text: Any) -> int:
    """A token through all layers of gated delta net, read as its definition says: no pair is looked at.

    A state is decayed, asked for what it holds under the key, corrected, and asked by the query: one operation
    and three times two per entry. Kernels read whole chunks, which costs more operations and less time.
    """
    num_layers = _layer_types(text).count("linear_attention")
    if not num_layers:
        return 0
    key = text.linear_num_key_heads * text.linear_key_head_dim
    value = text.linear_num_value_heads * text.linear_value_head_dim
    mixed = 2 * key + value
    linear = text.hidden_size * (mixed + 2 * value + 2 * text.linear_num_value_heads)
    states = 7 * value * text.linear_key_head_dim
    return int(num_layers * (2 * (linear + mixed * text.linear_conv_kernel_dim) + states))


def _padding_side_by_side(shape: ScoringShape) -> int:
    """Tokens of padding where the responses to all prompts of one length are padded to the longest of them."""
    read: dict[int, list[int]] = {}
    for prompt, lengths in zip(shape.prompt_lengths, shape.response_lengths, strict=True):
        read.setdefault(prompt, []).extend(max(length - 1, 0) for length in lengths)
    return sum(max(each) * len(each) - sum(each) for each in read.values())


def _pair_flops(text: Any) -> int:
    """Score and value of one query-key pair, all heads and layers that look at pairs."""
    heads = (text.num_attention_heads * head_channels(each) for each in attending_layers(text))
    return int(4 * sum(heads))


def _layer_types(text: Any) -> list[str]:
    return list(getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers)


def layer_configs(text: Any) -> list[Any]:
    """The configuration of each layer of a language model: heads may differ from layer to layer."""
    differ = getattr(text, "is_heterogeneous", False)
    return list(text.per_layer_config) if differ else [text] * len(_layer_types(text))


def attending_layers(text: Any) -> list[Any]:
    """Of these, the ones that look at pairs of tokens."""
    layers = zip(layer_configs(text), _layer_types(text), strict=True)
    return [each for each, kind in layers if kind != "linear_attention"]


def head_channels(text: Any) -> int:
    """Channels of one attention head; of the widest, where they differ from layer to layer."""
    if getattr(text, "is_heterogeneous", False):
        return max(map(head_channels, text.per_layer_config))
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)
