"""What a run will hold in memory, part by part and moment by moment, before it holds it.

The same count is made of the configuration alone (papo.models.meta_model), before any weight is read, and of
the loaded policy. Weights, gradient, optimiser and reference are counted to the byte; what passes hold is
counted in papo.training.activations; what is drawn from and cached, from shapes.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from papo.models.decode_weights import packs
from papo.models.families import model_parts
from papo.models.flops import attending_layers, head_channels
from papo.training.activations import (
    PassPrecision,
    PassSizes,
    activation_bytes,
    intervened_bytes,
)
from papo.training.microbatches import MicrobatchCutter
from papo.training.policy import MakeOptimizer, is_fused
from papo.training.reference import cast_by_passes

_GIB = 1024**3
_FLOAT32 = 4

# Of every row and token of the vocabulary while a token is drawn from all in order, as where the nucleus is large:
# log-probabilities (4), their order (8), and in float64 probabilities, two running sums and those of the nucleus
# (4 x 8), one of them as a flag (1).
_DRAWN = 45


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Bytes of one device by purpose.

    Attributes:
        weights: parameters and buffers of the policy.
        gradient: of what is trained.
        optimizer: its state after the first step; None where it cannot be told without a step.
        step: what a step of the optimiser makes beside it.
        reference: what the reference policy holds beside the policy's own weights.
        activations: what the largest micro-batch keeps for its backward pass, all views.
        head: logits of one chunk of the vocabulary head and what is made of them.
        intervened: what a counterfactual view takes while it is scored, without gradient.
        unsharded: of shards, what a pass puts together: a layer and the next, and what is in none.
        cache: keys and values of all responses that are sampled side by side.
        decoding: matrices that their tokens are read with, narrower or in another order than the weights.
        drawing: what their next tokens are drawn from.
        gathered: the weights of all shards, put together for sampling.
        offloads: optimiser and reference are on the host while responses are sampled.
    """

    weights: int
    gradient: int
    optimizer: int | None
    step: int
    reference: int
    activations: int
    head: int
    intervened: int
    unsharded: int
    cache: int
    decoding: int
    drawing: int
    gathered: int
    offloads: bool = False

    @property
    def moments(self) -> dict[str, int]:
        """Bytes at the moments that may be the largest; the gradient is gone before responses are sampled."""
        idle = (self.optimizer or 0) + self.reference
        stays = self.weights + idle + self.gradient
        sampled = self.weights + self.cache + self.decoding + self.drawing + self.gathered
        return {
            "sampling": sampled + (0 if self.offloads else idle),
            "the second look": self.weights + idle + self.intervened,
            "the update": stays + self.activations + self.head + self.unsharded,
            "the optimiser's step": stays + self.step,
        }

    @property
    def peak(self) -> int:
        return max(self.moments.values())

    @property
    def peak_moment(self) -> str:
        return max(self.moments, key=self.moments.__getitem__)

    def summary(self) -> str:
        """One line for people."""
        parts = []
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name == "offloads" or value == 0:
                continue
            parts.append(f"{each.name} {'unknown' if value is None else readable_bytes(value)}")
        return f"about {readable_bytes(self.peak)} at the peak, {self.peak_moment} ({', '.join(parts)})"


def largest_pass(
    *,
    prompt_tokens: int,
    patches: int,
    microbatches: MicrobatchCutter,
    prompts_per_minibatch: int,
    num_responses: int,
    max_response_tokens: int,
    views: int,
    sampled_rows: int,
) -> PassSizes:
    """Returns the sizes of a pass over prompts of one length, whose responses are as long as they may become.

    Args:
        prompt_tokens: of the longest prompt.
        patches: of its pictures.
        microbatches: how a minibatch is cut.
        prompts_per_minibatch: as of TrainingSettings.
        num_responses: G.
        max_response_tokens: of the rollout.
        views: of the image that are scored with gradient.
        sampled_rows: responses that are sampled side by side.
    """
    prompts = [prompt_tokens] * prompts_per_minibatch
    responses = [max_response_tokens] * (prompts_per_minibatch * num_responses)
    num_groups = max(stop - start for start, stop in microbatches.bounds(prompts, responses))
    rows = num_groups * num_responses
    tokens = microbatches.count_tokens(prompts[:num_groups], responses[:rows])
    shared = num_groups * prompt_tokens
    return PassSizes(
        tokens=tokens,
        prompt_tokens=shared if tokens == shared + rows * max_response_tokens else tokens,
        rows=rows,
        response_tokens=rows * max_response_tokens,
        patches=num_groups * patches,
        views=views,
        row_tokens=prompt_tokens + max_response_tokens,
        cached_tokens=-(-sampled_rows // num_responses) * prompt_tokens
        + sampled_rows * max_response_tokens,
        sampled_rows=sampled_rows,
    )


def longest_prompt(groups: Sequence[Any]) -> tuple[int, int]:
    """Tokens of the longest of these prompts, and patches of the one with most."""
    return (
        max(group.prompt_ids.shape[0] for group in groups),
        max(0 if group.patches is None else group.patches.shape[0] for group in groups),
    )


def estimate_memory(
    *,
    model: Any,
    sizes: PassSizes,
    make_optimizer: MakeOptimizer,
    has_reference: bool,
    half_precision: bool,
    checkpointing: bool,
    head_chunk_size: int,
    on_gpu: bool,
    shards: int = 1,
    offloads: bool = False,
    intervenes: bool = False,
) -> MemoryEstimate:
    """Returns what a device will hold; allocates nothing.

    Args:
        model: of the policy, with its adapters, and frozen where it is not trained; may be on the meta device.
        sizes: of the largest pass, and of what is sampled side by side.
        make_optimizer: of the run.
        has_reference: a reference policy is asked; with adapters it is the policy without them.
        half_precision: passes run in 16 bits (trainer.precision).
        checkpointing: as of VisionLanguagePolicy.
        head_chunk_size: as of VisionLanguagePolicy.
        on_gpu: the run computes on GPUs.
        shards: devices that share one copy of all that stays; the model is whole here.
        offloads: optimiser and reference are on the host while responses are sampled.
        intervenes: a counterfactual view is scored.
    """
    stored = next(model.parameters()).element_size()
    width = 2 if half_precision else stored
    precision = PassPrecision(width=width, casts=width < stored and shards == 1)
    trained = [p for p in model.parameters() if p.requires_grad]
    tower = _frozen_tower(model)
    weights, frozen = _bytes(_tensors(model)), _bytes(tower)
    gradient = _bytes(trained)
    optimizer, step = optimizer_bytes(trained, make_optimizer, on_gpu=on_gpu)
    numbers = sum(p.numel() for p in model.parameters())
    # A frozen tower is whole on every device, in the precision of passes.
    whole = 0 if shards == 1 else frozen * width // stored
    return MemoryEstimate(
        weights=weights if shards == 1 else (weights - frozen) // shards + whole,
        gradient=gradient // shards,
        optimizer=None if optimizer is None else optimizer // shards,
        step=step // shards,
        reference=reference_bytes(model, precision, shards) if has_reference else 0,
        activations=activation_bytes(
            model,
            sizes,
            precision,
            checkpointing=checkpointing,
            second_gradient=gradient if shards == 1 else gradient * width // stored,
            on_gpu=on_gpu,
        ),
        head=_head_bytes(
            model, sizes, head_chunk_size, narrow=width < _FLOAT32 and not precision.casts
        ),
        intervened=intervened_bytes(model, sizes, precision) if intervenes else 0,
        unsharded=0 if shards == 1 else _unsharded_bytes(model, width),
        cache=_cache_bytes(model, sizes, precision),
        decoding=_decoding_bytes(model, precision, on_gpu=on_gpu) if sizes.sampled_rows else 0,
        drawing=_DRAWN * sizes.sampled_rows * model.lm_head.weight.shape[0],
        gathered=0 if shards == 1 else numbers * width - whole,
        offloads=offloads,
    )


def optimizer_bytes(
    trained: Sequence[nn.Parameter], make_optimizer: MakeOptimizer, *, on_gpu: bool = False
) -> tuple[int | None, int]:
    """The optimiser's state after a step, and what the step makes beside it; from a step without memory.

    On a GPU PyTorch steps through all tensors at once (foreach), with a temporary tensor beside each, unless one
    kernel does it all (fused); on a CPU through one after another. What is kept of a tensor follows from its shape
    and type, so that one of each kind takes the step.

    Returns:
        None for the state of an optimiser whose step reads numbers back, which tensors without memory do not have.
    """
    counts = Counter((p.shape, p.dtype) for p in trained)
    stand_ins = [
        nn.Parameter(torch.empty(shape, dtype=dtype, device="meta")) for shape, dtype in counts
    ]
    for parameter in stand_ins:
        parameter.grad = torch.empty_like(parameter)
    # A fused optimiser refuses tensors of the meta device when it is made.
    optimizer = make_optimizer([nn.Parameter(torch.zeros(1, 1))])
    [group] = optimizer.param_groups
    fused, foreach = is_fused(group, on_gpu=on_gpu), group.get("foreach")
    group["params"] = stand_ins
    if "fused" in group:
        group["fused"] = False
    try:
        optimizer.step()
    except (RuntimeError, NotImplementedError):
        return None, 0
    kept = sum(
        count
        * _bytes(value for value in optimizer.state[one].values() if isinstance(value, Tensor))
        for one, count in zip(stand_ins, counts.values(), strict=True)
    )
    made = _bytes(trained) if foreach or (foreach is None and on_gpu) else _bytes(trained[:1])
    return kept, 0 if fused else made


def checkpoint_bytes(policy: nn.Module, make_optimizer: MakeOptimizer) -> int:
    """What a checkpoint takes on the disk: the weights that are trained, and the optimiser's state of them."""
    trained = [p for p in policy.parameters() if p.requires_grad]
    return _bytes(trained) + (optimizer_bytes(trained, make_optimizer)[0] or 0)


def reference_bytes(model: Any, precision: PassPrecision, shards: int) -> int:
    """Of the copy that is the reference: without a frozen tower, which is the policy's own; 0 with adapters."""
    if any("lora_" in name for name, _ in model.named_parameters()):
        return 0
    shared = {id(each) for each in _frozen_tower(model)}
    if shards > 1:
        copied = sum(p.numel() for p in model.parameters() if id(p) not in shared)
        return precision.width * copied // shards
    cast = {id(each) for each in cast_by_passes(model)} if precision.casts else set()
    return sum(
        each.numel() * (precision.width if id(each) in cast else each.element_size())
        for each in _tensors(model)
        if id(each) not in shared
    )


def _head_bytes(model: Any, sizes: PassSizes, chunk_size: int, *, narrow: bool) -> int:
    """Two float32 matrices of (chunk, vocabulary) per view: log p and p, which logits and gradients share;
    and the gradient of the head itself, summed before it joins that of the other passes. Of a head in half
    precision also its sum, and what a chunk adds to it.
    """
    rows, weight = min(chunk_size, sizes.response_tokens), model.lm_head.weight
    copies = (3 if narrow else 1) if weight.requires_grad else 0
    return int(
        2 * _FLOAT32 * sizes.views * rows * weight.shape[0] + copies * _FLOAT32 * weight.numel()
    )


def _cache_bytes(model: Any, sizes: PassSizes, precision: PassPrecision) -> int:
    """Keys and values of every layer that attends, and a state per row of every other."""
    text = model.config.get_text_config()
    types = getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers
    num_recurrent = types.count("linear_attention")
    layers = attending_layers(text)
    layers = layers[: len(layers) - getattr(text, "num_kv_shared_layers", 0)]
    row = sum(each.num_key_value_heads * head_channels(each) for each in layers)
    state = 0
    if num_recurrent:
        values = text.linear_num_value_heads * text.linear_value_head_dim
        state = num_recurrent * _FLOAT32 * values * text.linear_key_head_dim
    return int(sizes.cached_tokens * row * 2 * precision.width + sizes.sampled_rows * state)


def _decoding_bytes(model: Any, precision: PassPrecision, *, on_gpu: bool) -> int:
    """The matrices that every token is read with, held once more where passes would cast them or a CPU reads
    them in another order (DecodeStep)."""
    layers = model_parts(model).language_model(model).layers
    named = [(name, each.numel()) for name, each in layers.named_parameters() if "norm" not in name]
    if not precision.casts:
        if on_gpu or model.lm_head.weight.dtype != torch.float32:
            return 0
        numbers = [count for name, count in named if "lora_" not in name]
        return sum(_FLOAT32 * n for n in [*numbers, model.lm_head.weight.numel()] if packs(n))
    matrices = sum(count for _, count in named)
    # A CPU adds up products of half precision in operands that are wide again.
    head = model.lm_head.weight.numel() * (precision.width if on_gpu else _FLOAT32)
    return int(matrices * precision.width + head)


def _unsharded_bytes(model: Any, width: int) -> int:
    """A layer, the next one, the layer's gradient and its sum in float32; embeddings, head and their gradient."""
    parts = model_parts(model)
    units = [*parts.language_model(model).layers]
    if not _frozen_tower(model):
        units += parts.vision_stack(model)
    numbers = [sum(p.numel() for p in unit.parameters()) for unit in units]
    frozen = sum(p.numel() for p in _frozen_tower(model) if isinstance(p, nn.Parameter))
    rest = sum(p.numel() for p in model.parameters()) - sum(numbers) - frozen
    return max(numbers) * (3 * width + _FLOAT32) + 2 * width * rest


def _frozen_tower(model: Any) -> list[Tensor]:
    """Tensors of a vision tower that is not trained at all; none of one that is."""
    parts = model_parts(model)
    if any(p.requires_grad for p in parts.vision_parameters(model)):
        return []
    return [each for module in parts.vision_modules(model) for each in _tensors(module)]


def _tensors(module: nn.Module) -> list[Tensor]:
    """Parameters and buffers, each once."""
    return list({id(each): each for each in (*module.parameters(), *module.buffers())}.values())


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(each.numel() * each.element_size() for each in tensors)


def readable_bytes(size: int) -> str:
    for unit, name in ((_GIB, "GiB"), (1024**2, "MiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size / 1024:.0f} KiB"
