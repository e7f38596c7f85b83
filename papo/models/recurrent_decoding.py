"""One token of every row through a linear-attention layer (gated delta net), its state written in place.

What transformers computes for a single token, from the same weights. A state changes with every token, so each
row has its own; the prompt is still read once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from papo.models.decode_weights import Projection, all_of, joined, projection, root_mean_square


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowStates:
    """What the rows know in one layer; written in place.

    Attributes:
        conv: the last inputs of the convolution, as many as its kernel is long.
        recurrent: values by key, in float32 or wider.
    """

    conv: Float[Tensor, "row channel input"]
    recurrent: Float[Tensor, "row head key value"]

    def select(self, rows: Tensor) -> "RowStates":
        return replace(self, conv=self.conv[rows], recurrent=self.recurrent[rows])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecurrentStep:
    """The weights of a layer.

    Attributes:
        inputs: queries, keys and values before their convolution; gate of the output; strength and decay.
        kernel: of the convolution.
        decay: of the state per unit of the decay input, in log space; below 0.
        decay_bias: added to the decay input.
        norm: of the outputs of a head, which it also gates.
        output: back to the hidden size.
        sizes: numbers of `inputs`, one after another.
        key_heads, value_heads: each key head serves as many value heads, contiguous.
    """

    inputs: tuple[Projection, ...]
    kernel: Float[Tensor, "channel input"]
    activation: nn.Module
    decay: Float[Tensor, " head"]
    decay_bias: Float[Tensor, " head"]
    norm: Any
    output: Projection
    sizes: tuple[int, int, int, int]
    key_heads: int
    value_heads: int

    @classmethod
    def of(cls, mixer: Any, activation: Any, dtype: torch.dtype) -> "RecurrentStep":
        """Of a layer of transformers, multiplied in `dtype`."""
        names = mixer.in_proj_qkv, mixer.in_proj_z, mixer.in_proj_b, mixer.in_proj_a
        return cls(
            inputs=joined(names, dtype),
            kernel=mixer.conv1d.weight.squeeze(1).to(dtype),
            activation=activation,
            decay=-mixer.A_log.float().exp(),
            decay_bias=mixer.dt_bias,
            norm=mixer.norm,
            output=projection(mixer.out_proj, dtype),
            sizes=(mixer.conv_dim, mixer.value_dim, mixer.num_v_heads, mixer.num_v_heads),
            key_heads=mixer.num_k_heads,
            value_heads=mixer.num_v_heads,
        )

    def __call__(
        self, values: Float[Tensor, "row hidden"], states: RowStates
    ) -> Float[Tensor, "row hidden"]:
        """The output for one token of each row; `states` move on."""
        projected = all_of(self.inputs, values)
        mixed, gate, strength, decay_input = projected.split(self.sizes, dim=-1)
        query, key, value = self._heads(self._convolved(mixed, states.conv))
        state = states.recurrent
        decay = (self.decay * softplus(decay_input.float() + self.decay_bias)).exp()
        state.mul_(decay[..., None, None])
        # What is written is only what the state does not hold under this key yet: the delta rule.
        missing = (value - (key.unsqueeze(2) @ state).squeeze(2)) * strength.sigmoid()[..., None]
        state.addcmul_(key.unsqueeze(3), missing.unsqueeze(2))
        read = (query.unsqueeze(2) @ state).squeeze(2).to(values.dtype)
        return self.output(self._gated(read, gate.unflatten(-1, (self.value_heads, -1))))

    def _convolved(self, mixed: Tensor, conv: Tensor) -> Tensor:
        conv.copy_(torch.cat([conv[..., 1:], mixed[..., None].to(conv.dtype)], dim=-1))
        result: Tensor = self.activation((conv * self.kernel).sum(dim=-1))
        return result.to(mixed.dtype)

    def _heads(self, mixed: Tensor) -> Sequence[Tensor]:
        """Queries, keys and values [row head channel], keys repeated to as many heads as values have."""
        num_values = self.sizes[1]
        keys = (mixed.shape[-1] - num_values) // 2
        query, key, value = mixed.to(torch.promote_types(mixed.dtype, torch.float32)).split(
            [keys, keys, num_values], dim=-1
        )
        query, key = (
            _unit(part.unflatten(-1, (self.key_heads, -1))).repeat_interleave(
                self.value_heads // self.key_heads, dim=1
            )
            for part in (query, key)
        )
        return query * query.shape[-1] ** -0.5, key, value.unflatten(-1, (self.value_heads, -1))

    def _gated(self, read: Tensor, gate: Tensor) -> Tensor:
        if read.dtype in (torch.float32, torch.float64):
            return (root_mean_square(self.norm, read) * nn.functional.silu(gate)).flatten(1)
        gated: Tensor = self.norm(read, gate)
        return gated.flatten(1)


def _unit(values: Tensor) -> Tensor:
    """Of length 1, as transformers has it."""
    return values * torch.rsqrt(values.square().sum(dim=-1, keepdim=True) + 1e-6)
