"""States of linear attention (gated delta net) that gradients flow through, and prompts read once for them.

What such a layer has read is a matrix per head and the last few inputs of its convolution. transformers
copies new states into the old ones, which cuts the graph, and repeats neither; here states are assigned.
A token of padding moves a state unless it stands in front: what follows a prompt's last token decays what
the prompt has left, so prompts of such models are padded on the left, or packed.
"""

import inspect
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import Cache, DynamicCache, PreTrainedConfig
from transformers.cache_utils import LinearAttentionCacheLayerMixin

if TYPE_CHECKING:
    from papo.models.shared_prefix import PrefixBlock, SharedPrefixLayout


CPU_CHUNK = 16


class RecurrentLayer(LinearAttentionCacheLayerMixin):
    """The state of one linear-attention layer, one row per sequence; every update makes new tensors."""

    def __init__(self) -> None:
        super().__init__()
        # Else transformers writes single tokens into the state of the convolution in place.
        self.record_past = True

    @property
    def conv(self) -> Float[Tensor, "row channel input"]:
        """Inputs of the convolution, as many as its kernel is long."""
        return cast(Tensor, self.conv_states[0])

    @property
    def recurrent(self) -> Float[Tensor, "row head key value"]:
        """What has been read: values by key."""
        return cast(Tensor, self.recurrent_states[0])

    def assign(self, conv: Tensor, recurrent: Tensor) -> None:
        self.conv_states[0], self.recurrent_states[0] = conv, recurrent
        self.has_previous_state[0] = True

    def copied(self) -> "RecurrentLayer":
        """The same state, which later updates of this one leave alone."""
        copied = RecurrentLayer()
        copied.assign(self.conv, self.recurrent)
        return copied

    def lazy_initialization(self, *args: Any, **kwargs: Any) -> None:
        """Nothing is allocated ahead."""

    def update_conv_state(
        self,
        conv_states: Float[Tensor, "row channel token"],
        state_idx: int = 0,
        conv_kernel_size: int | None = None,
        **kwargs: Any,
    ) -> Float[Tensor, "row channel input"]:
        """Returns what the convolution sees: what it saw last, and the new inputs."""
        assert conv_kernel_size is not None, "transformers says how long the kernel is"
        seen = conv_states
        if self.has_previous_state[0]:
            seen = torch.cat([self.conv, conv_states], dim=-1)
        missing = max(conv_kernel_size - seen.shape[-1], 0)
        self.conv_states[0] = pad(seen, (missing, 0))[..., -conv_kernel_size:]
        self.has_previous_state[0] = True
        return seen

    def update_recurrent_state(
        self, recurrent_states: Tensor, state_idx: int = 0, **kwargs: Any
    ) -> Tensor:
        self.recurrent_states[0] = recurrent_states
        return recurrent_states

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Every row so often, contiguously."""
        self.assign(
            self.conv.repeat_interleave(repeats, dim=0),
            self.recurrent.repeat_interleave(repeats, dim=0),
        )

    def batch_select_indices(self, indices: Int[Tensor, " kept"]) -> None:
        self.assign(self.conv[indices], self.recurrent[indices])


def has_recurrence(config: PreTrainedConfig) -> bool:
    """Whether layers of the language model are linear attention, so that padding moves what they know."""
    types = getattr(config.get_text_config(), "layer_types", None) or ()
    return "linear_attention" in types


def prompt_cache(config: PreTrainedConfig) -> DynamicCache:
    """An empty cache for the language model of this configuration."""
    cache = DynamicCache(config=config)
    layers = cast(list[Any], cache.layers)
    for index, layer in enumerate(layers):
        if isinstance(layer, LinearAttentionCacheLayerMixin):
            layers[index] = RecurrentLayer()
    return cache


def install_packed_recurrence(language_model: nn.Module) -> None:
    """Lets linear-attention layers read packed rows (papo.models.shared_prefix); other calls work as before."""
    for layer in cast(Any, language_model).layers:
        mixer = getattr(layer, "linear_attn", None)
        if mixer is not None:
            mixer.forward = MethodType(_forward, mixer)


def _forward(
    self: Any,
    hidden_states: Float[Tensor, "row token hidden"],
    *,
    shared_prefix: "SharedPrefixLayout | None" = None,
    **kwargs: Any,
) -> Float[Tensor, "row token hidden"]:
    """What a decoder layer calls in place of the forward pass of transformers."""
    kwargs |= chunks(hidden_states.device)
    if shared_prefix is None:
        return cast(Tensor, type(self).forward(self, hidden_states, **kwargs))
    blocks = [_read_block(self, hidden_states[0], block) for block in shared_prefix.blocks]
    cache = kwargs.get(_cache_argument(self))
    if cache is not None:
        cache.layers[self.layer_idx].assign(
            torch.cat([state.conv for _, state in blocks]),
            torch.cat([state.recurrent for _, state in blocks]),
        )
    return torch.cat([output for outputs, _ in blocks for output in outputs])[None]


def _read_block(
    mixer: Any, rows: Float[Tensor, "token hidden"], block: "PrefixBlock"
) -> tuple[list[Tensor], RecurrentLayer]:
    """Outputs of a block, and the state of each of its prompts.

    The prompts, of one length, side by side, then their responses on top of their states. No padding stands
    before a token: that behind a response is read last and handed on to nothing.
    """
    state, places = RecurrentLayer(), block.rows
    # transformers looks the layer up by its number.
    cache = {_cache_argument(mixer): Cache(layers=[state] * (mixer.layer_idx + 1))}
    read = partial(type(mixer).forward, mixer, **cache, **chunks(rows.device))
    outputs = [read(rows[block.prompts].unflatten(0, (places.num_groups, -1))).flatten(0, 1)]
    of_prompts = state.copied()
    if places.in_responses.numel():
        state.batch_repeat_interleave(places.num_rollouts // places.num_groups)
        padded = rows[block.responses].index_select(0, block.padded.flatten())
        after = read(padded.unflatten(0, block.padded.shape)).flatten(0, 1)
        outputs.append(after.index_select(0, places.in_responses))
    return outputs, of_prompts


def chunks(device: torch.device) -> dict[str, int]:
    """How many tokens meet one another at once, where that is ours to say.

    The result is the same but for rounding. transformers pads every sequence to whole chunks of 64, most of which
    are padding where responses have 24 tokens; a CPU is fastest with fewer. Kernels on a GPU have sizes of their own.
    """
    return {"chunk_size": CPU_CHUNK} if device.type == "cpu" else {}


def _cache_argument(mixer: Any) -> str:
    """transformers renamed it in 5.24 and warns at the old name."""
    return (
        "cache" if "cache" in inspect.signature(type(mixer).forward).parameters else "cache_params"
    )
