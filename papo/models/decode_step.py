"""One token of every row through the language model: what sampling repeats thousands of times.

The same numbers as the model's own forward pass, from the same weights, without what that does per
token for cases that do not arise here: masks, caches, casts of weights. Shapes change only where
buffers grow or rows leave, and nothing is read back from the device, so a GPU can replay it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import embedding

from papo.models.cuda_graph import Replayed, can_replay
from papo.models.decode_weights import (
    Projection,
    all_of,
    joined,
    product_dtype,
    projection,
    root_mean_square,
)
from papo.models.families import FamilyAdapter
from papo.models.recurrent_decoding import RecurrentStep
from papo.models.shared_decoding import OwnTokens, SharedPrompts, shared_decoding_attention


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Layer:
    """Weights of a decoder layer, which attends or is recurrent."""

    input_norm: nn.Module
    mixer: "_Attention | RecurrentStep"
    mlp_norm: nn.Module
    gate_up: tuple[Projection, ...]
    activation: nn.Module
    down: Projection


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Attention:
    """What reads the same input is one matrix where it was copied anyway.

    Attributes:
        is_gated: beside each head of queries stands one that gates what it attended.
    """

    qkv: tuple[Projection, ...]
    query_norm: nn.Module | None
    key_norm: nn.Module | None
    output: Projection
    is_gated: bool


class DecodeStep:
    """Reads one token per row on top of shared prompts.

    Args:
        adapter: of the model.
        static: every step has the shape of the last one until room or rows change, as a replay on a GPU
            needs it; else attention reads no more keys than there are.

    Attributes:
        dtype: of matrix products: that of autocast where it is on, else of the weights. Weights of another
            one are copied here, once; norms, embeddings and rotations stay as they are.
    """

    def __init__(self, adapter: FamilyAdapter, *, static: bool) -> None:
        language_model = adapter.language_model
        self.adapter, self.model, self.static = adapter, language_model, static
        weight = language_model.embed_tokens.weight
        self.dtype = product_dtype(weight)
        self.layers = [_layer(layer, self.dtype) for layer in language_model.layers]
        attention = next(
            layer.self_attn for layer in language_model.layers if hasattr(layer, "self_attn")
        )
        self.channels, self.scaling = int(attention.head_dim), float(attention.scaling)
        config = language_model.config
        self.num_heads = int(config.num_attention_heads)
        self.num_kv_heads = int(config.num_key_value_heads)
        self._rotations: Tensor | None = None

    def __call__(
        self,
        own: OwnTokens,
        prompts: SharedPrompts,
        next_positions: Int[Tensor, " row"],
        token_ids: Int[Tensor, " row"],
        token_mask: Bool[Tensor, " row"],
    ) -> Float[Tensor, "row hidden"]:
        """Hidden states of the tokens; `own` and `next_positions` move on in place.

        A row whose token is masked (it has ended) does not attend to it later.
        """
        if own.length == own.room:
            own.grow()
            self._rotations = None
        if self._rotations is None:
            self._rotations = self._rotations_until(
                int(next_positions.max()) + own.room - own.length
            )
        if self.static and can_replay(token_ids.device):
            if own.replayed is None:
                # A copy, which does not hold the recording that holds it.
                inputs = replace(own), prompts, next_positions
                own.replayed = Replayed(
                    lambda *given: self._read(*inputs, *given),
                    (token_ids.clone(), token_mask.clone()),
                )
            hidden = own.replayed(token_ids, token_mask)
        else:
            hidden = self._read(own, prompts, next_positions, token_ids, token_mask)
        own.length += 1
        return hidden

    def _read(
        self,
        own: OwnTokens,
        prompts: SharedPrompts,
        next_positions: Tensor,
        token_ids: Tensor,
        token_mask: Tensor,
    ) -> Tensor:
        with torch.autocast(token_ids.device.type, enabled=False):
            hidden = embedding(token_ids, self.model.embed_tokens.weight)
            assert self._rotations is not None
            rotation = self._rotations.index_select(0, next_positions)[:, None].chunk(2, dim=-1)
            width = own.room if self.static else own.length + 1
            num_prompt = own.bias.shape[1] - own.room
            heard = torch.zeros_like(token_mask, dtype=own.bias.dtype)
            heard = heard.masked_fill_(~token_mask, -torch.inf)
            own.bias.index_copy_(1, own.position + num_prompt, heard[:, None])
            bias = own.bias[:, : num_prompt + width]
            states = iter(own.states)
            buffers = enumerate(zip(own.keys, own.values, strict=True))
            for layer in self.layers:
                values_in = root_mean_square(layer.input_norm, hidden).to(self.dtype)
                if isinstance(layer.mixer, RecurrentStep):
                    hidden += layer.mixer(values_in, next(states))
                else:
                    index, (keys, values) = next(buffers)
                    query, key, value, gate = self._heads(layer.mixer, values_in, rotation)
                    keys.index_copy_(2, own.position, key[:, :, None])
                    values.index_copy_(2, own.position, value[:, :, None])
                    attended = shared_decoding_attention(
                        query.unflatten(1, (self.num_kv_heads, -1)),
                        keys[:, :, :width],
                        values[:, :, :width],
                        bias=bias,
                        prompts=prompts,
                        layer=index,
                    )
                    if gate is not None:
                        attended = attended * gate.flatten(1).sigmoid()
                    hidden += layer.mixer.output(attended)
                values_in = root_mean_square(layer.mlp_norm, hidden).to(self.dtype)
                gate_up = all_of(layer.gate_up, values_in).chunk(2, dim=-1)
                hidden += layer.down(layer.activation(gate_up[0]) * gate_up[1])
            own.position += 1
            next_positions += 1
            return root_mean_square(self.model.norm, hidden)

    def _heads(
        self, attention: _Attention, values_in: Tensor, rotation: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Scaled queries, keys and values of one token, rotated, and the gates. [row head channel]"""
        heads = all_of(attention.qkv, values_in).unflatten(1, (-1, self.channels))
        gate = None
        if attention.is_gated:
            query, heads = heads.tensor_split([2 * self.num_heads], dim=1)
            query, gate = query.unflatten(1, (-1, 2)).unbind(dim=2)
            heads = torch.cat([query, heads], dim=1)
        turned, value = heads.split([self.num_heads + self.num_kv_heads, self.num_kv_heads], dim=1)
        if attention.query_norm is not None and attention.key_norm is not None:
            query, key = turned.split([self.num_heads, self.num_kv_heads], dim=1)
            query = root_mean_square(attention.query_norm, query)
            turned = torch.cat([query, root_mean_square(attention.key_norm, key)], dim=1)
        turned = _rotated(turned, *rotation)
        query, key = turned.split([self.num_heads, self.num_kv_heads], dim=1)
        return (query * self.scaling).to(self.dtype), key.to(self.dtype), value, gate

    def _rotations_until(self, stop: int) -> Float[Tensor, "position channel"]:
        """cos and sin of every position; the sign of half a rotation is in its sine."""
        weight = self.model.embed_tokens.weight
        positions = torch.arange(stop, device=weight.device)
        positions = positions.expand(self.adapter.position_axes, 1, -1)
        positions = self.adapter.rotary_positions(positions)
        cos, sin = (table[0] for table in self.model.rotary_emb(weight[:1], positions))
        first, second = sin.chunk(2, dim=-1)
        return torch.cat([cos, -first, second], dim=-1)


class Decoding:
    """What is prepared once for many tokens, by the first of them.

    Attributes:
        static: as of DecodeStep.
        head: the output head, as it is multiplied.
    """

    def __init__(self, adapter: FamilyAdapter, *, static: bool) -> None:
        self.adapter, self.static = adapter, static
        self.head: Projection | None = None
        self._step: DecodeStep | None = None

    @property
    def step(self) -> DecodeStep:
        if self._step is None:
            self._step = DecodeStep(self.adapter, static=self.static)
        return self._step


def can_decode(language_model: Any) -> bool:
    """Whether positions turn alike however many tokens were read."""
    rope = getattr(language_model.rotary_emb, "rope_type", "default")
    return rope not in ("dynamic", "longrope")


def _rotated(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The first channels of each head turned, as many as the rotation has; the rest as it is."""
    width = cos.shape[-1]
    first, rest = heads.tensor_split([width], dim=-1)
    turned = (first * cos).add_(first.roll(width // 2, dims=-1) * sin)
    return torch.cat([turned, rest], dim=-1) if rest.shape[-1] else turned


def _layer(layer: Any, dtype: torch.dtype) -> _Layer:
    mlp = layer.mlp
    return _Layer(
        input_norm=layer.input_layernorm,
        mixer=_attention(layer.self_attn, dtype)
        if hasattr(layer, "self_attn")
        else RecurrentStep.of(layer.linear_attn, mlp.act_fn, dtype),
        mlp_norm=layer.post_attention_layernorm,
        gate_up=joined((mlp.gate_proj, mlp.up_proj), dtype),
        activation=mlp.act_fn,
        down=projection(mlp.down_proj, dtype),
    )


def _attention(attention: Any, dtype: torch.dtype) -> _Attention:
    queries, outputs = attention.q_proj, attention.o_proj
    return _Attention(
        qkv=joined((queries, attention.k_proj, attention.v_proj), dtype),
        query_norm=getattr(attention, "q_norm", None),
        key_norm=getattr(attention, "k_norm", None),
        output=projection(outputs, dtype),
        is_gated=queries.out_features == 2 * outputs.in_features,
    )
