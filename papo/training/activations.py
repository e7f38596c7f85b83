"""What passes over the data hold: a count of what autograd keeps, layer by layer, from shapes alone.

The counts follow the layers of the model families as transformers computes them and the attention of
papo.models.shared_prefix. `tests/training/test_memory_counted.py` compares them with every storage that is
alive in a pass on a CPU, within 10 %. Not compared: other kernels of attention, CUDA's allocator (its blocks
are rounded up and may lie idle) and the workspaces of cuBLAS.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from papo.models.families import family_of, model_parts
from papo.models.flops import head_channels, layer_configs
from papo.models.recurrent_state import CPU_CHUNK
from papo.training.recurrent_activations import GPU_CHUNK, recurrent_bytes

_FLOAT32 = 4

# Linear layers that read one tensor; any other reads a tensor of its own.
_READS = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}
_READS |= {f"in_proj_{name}": "in_proj_qkv" for name in "zba"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PassSizes:
    """The largest pass of a run.

    Attributes:
        tokens: through the language model, one view.
        prompt_tokens: of these, those of prompts that responses share; all where they share none.
        rows: responses, each of which has the keys and values of its prompt beside its own.
        response_tokens: of all these responses.
        patches: through the vision tower, one view.
        views: of the image that are scored with gradient: 1 or 2.
        row_tokens: prompt and response of the longest of these.
        cached_tokens: in the cache of the sampler: each prompt once, and the responses to it that are
            sampled side by side.
        sampled_rows: responses that are sampled side by side.
    """

    tokens: int
    prompt_tokens: int
    rows: int
    response_tokens: int
    patches: int
    views: int
    row_tokens: int
    cached_tokens: int
    sampled_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PassPrecision:
    """Bytes of a number in a pass.

    Attributes:
        width: of what linear layers read and write.
        casts: weights are wider, and each is cast where it is used (autocast): the cast is kept for the
            backward pass, and so is a cast of its input of its own. Not of weights in shards, which are cast
            where they are put together.
    """

    width: int
    casts: bool

    @property
    def residual(self) -> int:
        """Of the embeddings, and of what layers add to them."""
        return _FLOAT32 if self.casts else self.width


def activation_bytes(
    model: Any,
    sizes: PassSizes,
    precision: PassPrecision,
    *,
    checkpointing: bool,
    second_gradient: int,
    on_gpu: bool,
) -> int:
    """The most that the activations of all views take, from their forward to the end of their backward pass.

    With gradient checkpointing that is the input of every layer, and all of one layer while it is computed
    again. A layer is never alone: its backward pass holds gradients of what it kept.

    Args:
        model: of a family that papo.models.families knows; it may be on the meta device.
        sizes: of the pass.
        precision: of the pass.
        checkpointing: activations are computed again in the backward pass.
        second_gradient: bytes of the gradient of all that is trained, as a pass makes it.
        on_gpu: where the pass is made.
    """
    decoder = model_parts(model).language_model(model)
    config = model.config.get_text_config()
    chunk = GPU_CHUNK if on_gpu else CPU_CHUNK
    layers = [
        _decoder_layer(of_layer, layer, sizes, precision, chunk)
        for of_layer, layer in zip(layer_configs(config), decoder.layers, strict=True)
    ]
    inputs = precision.residual * config.hidden_size * sizes.tokens
    norm = config.hidden_size * _norm(decoder.norm, precision.residual) * sizes.tokens
    read = 2 * _FLOAT32 * config.hidden_size * sizes.response_tokens
    # A product's gradient is there beside both factors'; adapters read float32, so theirs is cast to and fro.
    wide = 2 * precision.width + (8 if precision.casts and _has_adapters(decoder) else 0)
    stack = _Stack(
        kept=len(layers) * inputs if checkpointing else sum(layers),
        again=max(layers) - inputs if checkpointing else 0,
        working=wide * config.intermediate_size * sizes.tokens + inputs,
    )
    # Four such tensors, in float32, are there in the backward pass of a norm.
    last_norm = norm + 4 * _FLOAT32 * config.hidden_size * sizes.tokens
    seen = _seen(model, sizes.patches, precision, checkpointing=checkpointing)
    around = _around_windows(config, sizes, precision)
    kept = stack.kept + norm + read + seen.kept + around
    alone = (
        seen.kept
        + around
        + max(
            stack.kept + read + last_norm,
            stack.kept + stack.again + stack.working,
            seen.again + seen.working,
        )
    )
    # The views' passes backward follow one another, and what the first of them says of a weight waits for
    # the other: a second gradient, beside one view.
    return alone if sizes.views == 1 else max(kept + alone, alone + second_gradient)


def intervened_bytes(model: Any, sizes: PassSizes, precision: PassPrecision) -> int:
    """The most that a counterfactual view takes without gradient: dense attention, one response at a time.

    No response shares its prompt, and of one there are two matrices of (head, token, token) in float32 and a flag for
    each of their cells (papo.models.counterfactual).

    Args:
        model: as of `activation_bytes`.
        sizes: of the pass.
        precision: of the pass.
    """
    config = model.config.get_text_config()
    channels, length = head_channels(config), sizes.row_tokens
    query, key = config.num_attention_heads * channels, config.num_key_value_heads * channels
    square = config.num_attention_heads * length**2 * (2 * _FLOAT32 + 1)
    # Queries, keys and values as they are read and rotated; what was attended, of all rows and, of one, in the making.
    per_token = (precision.width + precision.residual) * (query + 2 * key) + _FLOAT32 * query
    attention = sizes.rows * length * per_token + 6 * _FLOAT32 * query * length + square
    feed_forward = sizes.rows * length * 3 * config.intermediate_size * precision.width
    residuals = sizes.rows * length * 2 * config.hidden_size * precision.residual
    return int(residuals + max(attention, feed_forward))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stack:
    """Bytes of layers: kept by all, kept of the one that is computed again, and made by its backward pass."""

    kept: int
    again: int
    working: int


def _seen(model: Any, patches: int, precision: PassPrecision, *, checkpointing: bool) -> _Stack:
    parts, config = model_parts(model), model.config.vision_config
    if not any(p.requires_grad for p in parts.vision_parameters(model)):
        return _Stack(kept=0, again=0, working=0)
    layers = parts.vision_stack(model)
    block = _tower_block(config, layers[0], patches, precision)
    inputs = _tower_residual(parts.vision_modules(model)[0], precision)
    inputs *= config.hidden_size * patches
    kept = len(layers) * (inputs if checkpointing else block)
    return _Stack(
        kept=kept + _tower_ends(model, patches, precision),
        again=block - inputs if checkpointing else 0,
        working=patches
        * max(2 * precision.width * config.intermediate_size, 7 * _FLOAT32 * config.hidden_size),
    )


def _decoder_layer(
    config: Any, layer: Any, sizes: PassSizes, precision: PassPrecision, chunk: int
) -> int:
    width, tokens = precision.width, sizes.tokens
    norms = sum(
        _norm(norm, precision.residual)
        for norm in _norms(nn.ModuleList(m for m in layer.children() if not list(m.children())))
    )
    per_token = norms * config.hidden_size + _linear_inputs(layer, precision)
    per_token += 3 * config.intermediate_size * width
    kept = per_token * tokens + _weight_casts(layer, precision)
    if hasattr(layer, "linear_attn"):
        return kept + recurrent_bytes(layer.linear_attn, sizes, precision, chunk)
    return kept + _attention(config, layer.self_attn, sizes, precision)


def _attention(config: Any, attention: Any, sizes: PassSizes, precision: PassPrecision) -> int:
    channels, width, tokens = head_channels(config), precision.width, sizes.tokens
    query, key = config.num_attention_heads * channels, config.num_key_value_heads * channels
    normalised = 0
    masks = _mask_entries(config, sizes) * width
    if hasattr(attention, "q_norm"):
        normalised = (
            _norm(attention.q_norm, width) * query
            + _norm(getattr(attention, "k_norm", attention.q_norm), width) * key
        )
    # Queries and keys are rotated in the precision of the embeddings, and cast block by block.
    rotated = sizes.prompt_tokens if precision.casts else tokens
    attended = rotated * (query + key) + tokens * key + sizes.prompt_tokens * query
    if sizes.prompt_tokens < tokens:
        longest = sizes.response_tokens // sizes.rows
        attended += 2 * sizes.response_tokens * query + 2 * sizes.rows * sizes.row_tokens * key
        attended += query // key * longest * sizes.row_tokens
    if attention.q_proj.out_features == 2 * query:  # a gate, and what it multiplies
        attended += 2 * tokens * query
    return normalised * tokens + attended * width + masks


def _around_windows(config: Any, sizes: PassSizes, precision: PassPrecision) -> int:
    """Of layers with a window and of those without: a mask of bits, and the angles that queries and keys are rotated by."""
    entries = _mask_entries(config, sizes)
    angles = 2 * head_channels(config) * sizes.tokens
    return 2 * (entries + precision.residual * angles) if entries else 0


def _mask_entries(config: Any, sizes: PassSizes) -> int:
    """Of one mask that a model with windows is given: every row's queries and keys. Each layer keeps it as numbers."""
    if "sliding_attention" not in (getattr(config, "layer_types", None) or ()):
        return 0
    if sizes.prompt_tokens == sizes.tokens:
        return sizes.rows * sizes.row_tokens**2
    prompt_length = sizes.row_tokens - sizes.response_tokens // sizes.rows
    return sizes.prompt_tokens * prompt_length + sizes.response_tokens * sizes.row_tokens


def _tower_block(config: Any, block: nn.Module, patches: int, precision: PassPrecision) -> int:
    hidden, width = config.hidden_size, precision.width
    norms = sum(_norm(norm, width) for norm in _norms(block))
    gates = 3 if hasattr(block.mlp, "gate_proj") else 1
    per_patch = norms * hidden + _linear_inputs(block, precision)
    # Rotated queries and keys, the projection whose part the values are, and what was attended.
    per_patch += 6 * hidden * width + gates * config.intermediate_size * width
    return per_patch * patches + _weight_casts(block, precision)


def _tower_ends(model: Any, patches: int, precision: PassPrecision) -> int:
    """The pixels, and the mergers behind the blocks."""
    adapter = family_of(model.config).adapter
    mergers = adapter.parts.merger_modules(model)
    per_patch = adapter.patch_channels(model.config) * precision.width
    for merger in mergers:
        norms = sum(_norm(norm, precision.width) for norm in _norms(merger))
        per_patch += model.config.vision_config.hidden_size * (norms + 3 * precision.width)
    return per_patch * patches + sum(_weight_casts(merger, precision) for merger in mergers)


def _tower_residual(tower: Any, precision: PassPrecision) -> int:
    """Learned positions are added, in float32, to what a convolution says of the pixels."""
    adds_positions = any("pos" in name for name, _ in tower.named_parameters())
    return precision.residual if adds_positions else precision.width


def _norms(module: nn.Module) -> list[nn.Module]:
    return [
        each
        for each in module.modules()
        if isinstance(each, nn.LayerNorm) or type(each).__name__.endswith("RMSNorm")
    ]


def _norm(norm: Any, width: int) -> int:
    """Bytes a norm keeps per channel: its input in float32 and, where its weight is trained, the normalised."""
    if isinstance(norm, nn.LayerNorm) or getattr(norm, "weight", None) is None:
        return _FLOAT32
    # Of norms that transformers writes so, the weight multiplies in float32.
    if hasattr(norm, "_norm"):
        width = _FLOAT32
    return _FLOAT32 + (width if norm.weight.requires_grad else 0)


def _linear_inputs(layer: nn.Module, precision: PassPrecision) -> int:
    """Bytes per token of what the linear layers have read: kept where a weight or an adapter is trained."""
    kept: dict[str, int] = {}
    adapters = 0
    for path, linear in _linears(layer):
        name = path.rpartition(".")[2]
        adapter = getattr(linear, "lora_A", None)
        base = getattr(linear, "base_layer", linear)
        if adapter is not None:
            adapters += sum(one.out_features for one in adapter.values())
        elif not base.weight.requires_grad:
            continue
        kept[name if precision.casts else _READS.get(name, name)] = base.in_features
    return precision.width * (sum(kept.values()) + adapters)


def _weight_casts(layer: nn.Module, precision: PassPrecision) -> int:
    if not precision.casts:
        return 0
    return precision.width * sum(
        getattr(linear, "base_layer", linear).weight.numel() for _, linear in _linears(layer)
    )


def _has_adapters(stack: nn.Module) -> bool:
    return any("lora_" in name for name, _ in stack.named_parameters())


def _linears(layer: nn.Module) -> list[tuple[str, Any]]:
    """Linear layers, an adapted one as a whole."""
    return [
        (name, module)
        for name, module in layer.named_modules()
        if hasattr(module, "base_layer")
        or (isinstance(module, nn.Linear) and "base_layer" not in name and "lora_" not in name)
    ]
