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
from torch.nn.functional import embedding, linear, rms_norm

from papo.models.cuda_graph import Replayed, can_replay
from papo.models.families import FamilyAdapter
from papo.models.shared_decoding import OwnTokens, SharedPrompts, shared_decoding_attention


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Projection:
    """A linear layer, and the low-rank adapters on top of it."""

    weight: Tensor
    bias: Tensor | None
    adapters: tuple[tuple[Tensor, Tensor, float], ...] = ()

    def __call__(self, values: Tensor) -> Tensor:
        result = linear(values, self.weight, self.bias)
        for down, up, scale in self.adapters:
            added = linear(linear(values.to(down.dtype), down), up) * scale
            result = (result + added).to(result.dtype)
        return result


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Layer:
    """Weights of a decoder layer; what reads the same input is one matrix where it was copied anyway."""

    input_norm: nn.Module
    qkv: tuple[_Projection, ...]
    query_norm: nn.Module | None
    key_norm: nn.Module | None
    output: _Projection
    mlp_norm: nn.Module
    gate_up: tuple[_Projection, ...]
    activation: nn.Module
    down: _Projection


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
        attention = language_model.layers[0].self_attn
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
            for index, layer in enumerate(self.layers):
                query, key, value = self._heads(layer, hidden, rotation)
                keys, values = own.keys[index], own.values[index]
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
                hidden += layer.output(attended)
                values_in = _norm(layer.mlp_norm, hidden).to(self.dtype)
                gate, up = _all(layer.gate_up, values_in).chunk(2, dim=-1)
                hidden += layer.down(layer.activation(gate) * up)
            own.position += 1
            next_positions += 1
            return _norm(self.model.norm, hidden)

    def _heads(
        self, layer: _Layer, hidden: Tensor, rotation: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled queries, keys and values of one token, rotated. [row head channel]"""
        projected = _all(layer.qkv, _norm(layer.input_norm, hidden).to(self.dtype))
        heads = projected.unflatten(1, (-1, self.channels))
        turned, value = heads.split([self.num_heads + self.num_kv_heads, self.num_kv_heads], dim=1)
        if layer.query_norm is not None and layer.key_norm is not None:
            query, key = turned.split([self.num_heads, self.num_kv_heads], dim=1)
            turned = torch.cat([_norm(layer.query_norm, query), _norm(layer.key_norm, key)], dim=1)
        cos, sin = rotation
        turned = (turned * cos).add_(turned.roll(self.channels // 2, dims=-1) * sin)
        query, key = turned.split([self.num_heads, self.num_kv_heads], dim=1)
        return (query * self.scaling).to(self.dtype), key.to(self.dtype), value

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
        head_operand: of HeadPrecision.
    """

    def __init__(self, adapter: FamilyAdapter, *, static: bool) -> None:
        self.adapter, self.static = adapter, static
        self.head_operand: Tensor | None = None
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


def product_dtype(weight: Tensor) -> torch.dtype:
    """What products with such a tensor are computed in: that of autocast where it is on."""
    device = weight.device.type
    if weight.dtype != torch.float64 and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return weight.dtype


def _layer(layer: Any, dtype: torch.dtype) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    return _Layer(
        input_norm=layer.input_layernorm,
        qkv=_joined((attention.q_proj, attention.k_proj, attention.v_proj), dtype),
        query_norm=getattr(attention, "q_norm", None),
        key_norm=getattr(attention, "k_norm", None),
        output=_projection(attention.o_proj, dtype),
        mlp_norm=layer.post_attention_layernorm,
        gate_up=_joined((mlp.gate_proj, mlp.up_proj), dtype),
        activation=mlp.act_fn,
        down=_projection(mlp.down_proj, dtype),
    )


def _projection(module: Any, dtype: torch.dtype) -> _Projection:
    """A linear layer, or one of peft around it; dropout of adapters is 0 here (papo.models.lora)."""
    base = getattr(module, "base_layer", module)
    adapters = []
    if base is not module and not module.disable_adapters:
        for name in module.active_adapters:
            if name in module.lora_A:
                down, up = module.lora_A[name].weight, module.lora_B[name].weight
                if dtype != base.weight.dtype:  # autocast narrows them too
                    down, up = down.to(dtype), up.to(dtype)
                adapters.append((down, up, float(module.scaling[name])))
    bias = None if base.bias is None else base.bias.to(dtype)
    return _Projection(weight=base.weight.to(dtype), bias=bias, adapters=tuple(adapters))


def _joined(modules: Sequence[Any], dtype: torch.dtype) -> tuple[_Projection, ...]:
    """Layers of one input: one matrix where they were copied and have no adapters, else as they are."""
    parts = tuple(_projection(module, dtype) for module in modules)
    copied = all(
        part.weight.data_ptr() != getattr(module, "base_layer", module).weight.data_ptr()
        for part, module in zip(parts, modules, strict=True)
    )
    if not copied or any(part.adapters for part in parts):
        return parts
    biases = [part.bias for part in parts if part.bias is not None]
    return (
        _Projection(
            weight=torch.cat([part.weight for part in parts]),
            bias=torch.cat(biases) if biases else None,
        ),
    )


def _all(parts: Sequence[_Projection], values: Tensor) -> Tensor:
    if len(parts) == 1:
        return parts[0](values)
    return torch.cat([part(values) for part in parts], dim=-1)


def _norm(norm: Any, values: Tensor) -> Tensor:
    """Root mean square norm: the fused one where the model's own rounds nothing on the way."""
    weight = norm.weight
    if values.dtype == weight.dtype and values.dtype in (torch.float32, torch.float64):
        return rms_norm(values, weight.shape, weight, norm.variance_epsilon)
    result: Tensor = norm(values)
    return result
