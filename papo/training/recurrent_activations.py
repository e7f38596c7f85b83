"""What a layer of gated delta net keeps for its backward pass, as transformers computes it in PyTorch.

Sequences are cut into chunks and padded to whole ones; within a chunk every token meets every
other, and all of that is float32. Fused kernels (flash-linear-attention) keep much less; they are not counted.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from papo.training.activations import PassPrecision, PassSizes

_FLOAT32 = 4
GPU_CHUNK = 64
"""Of transformers; on a CPU it is papo.models.recurrent_state.CPU_CHUNK."""


def recurrent_bytes(mixer: Any, sizes: "PassSizes", precision: "PassPrecision", chunk: int) -> int:
    """Of one pass through a layer, the inputs of its linear layers aside."""
    key, value = mixer.head_k_dim, mixer.head_v_dim
    # A token is normalised, scaled, decayed and multiplied with the tokens of its chunk: queries and keys four
    # times each, values four; five products of pairs; and the state once per chunk.
    per_padded = 8 * key + 4 * value + 5 * chunk + key * value // chunk
    # The convolution's inputs and outputs; the gate, and what it multiplies, before and after it is normalised.
    wide = 2 * mixer.conv_dim + 2 * mixer.value_dim
    gated = 2 * mixer.value_dim
    padded = _padded_tokens(sizes, chunk) * mixer.num_v_heads * per_padded
    return int(_FLOAT32 * (padded + gated * sizes.tokens) + precision.width * wide * sizes.tokens)


def _padded_tokens(sizes: "PassSizes", chunk: int) -> int:
    """Of prompts and responses, each cut into whole chunks."""
    if sizes.prompt_tokens == sizes.tokens:
        return sizes.rows * _chunked(sizes.row_tokens, chunk)
    longest = sizes.response_tokens // sizes.rows
    prompt = sizes.row_tokens - longest
    num_prompts = -(-sizes.prompt_tokens // prompt)
    return num_prompts * _chunked(prompt, chunk) + sizes.rows * _chunked(longest, chunk)


def _chunked(length: int, chunk: int) -> int:
    return -(-length // chunk) * chunk
