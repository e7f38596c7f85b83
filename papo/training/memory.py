"""What a training step will hold in memory, estimated before the first one.

Weights, gradient, optimiser state and reference are counted from the tensors themselves, to the byte.
What passes over the data hold is a formula over the sizes of a decoder with gated MLPs and grouped keys
and of a vision tower: an estimate within a factor of two of what autograd keeps, no more than that.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from papo.training.microbatches import MicrobatchCutter
from papo.types import PromptGroup

_GIB = 1024**3
_FLOAT32 = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Bytes by purpose. The first four stay, the next two live during a pass of the update, the last
    one while sampling.

    Attributes:
        weights: parameters and buffers of the policy.
        gradient: of what is trained.
        optimizer: its state after the first step; None where it cannot be told without a step.
        reference: what the reference policy holds beside the policy's own weights.
        activations: what the largest micro-batch keeps for its backward pass, all views.
        head: logits of one chunk of the vocabulary head and what is made of them.
        cache: keys and values of all responses that are sampled side by side.
        gathered: the weights of all shards, put together for sampling; 0 where they are not in shards.
    """

    weights: int
    gradient: int
    optimizer: int | None
    reference: int
    activations: int
    head: int
    cache: int
    gathered: int = 0

    @property
    def peak(self) -> int:
        """The larger of an update and a rollout; the gradient is there in the former alone."""
        static = self.weights + (self.optimizer or 0) + self.reference
        update = self.gradient + self.activations + self.head
        return static + max(update, self.cache + self.gathered)

    def summary(self) -> str:
        """One line for people."""
        parts = []
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name == "gathered" and not value:
                continue
            parts.append(f"{each.name} {'unknown' if value is None else readable_bytes(value)}")
        return f"memory: about {readable_bytes(self.peak)} at the peak ({', '.join(parts)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class PassSizes:
    """The largest pass of a run.

    Attributes:
        tokens: through the language model, one view.
        rows: responses, each of which has the keys and values of its prompt beside its own.
        response_tokens: of all these responses.
        patches: through the vision tower, one view.
        views: of the image that are scored with gradient: 1 or 2.
        row_tokens: prompt and response of the longest of these.
        cached_tokens: in the cache of the sampler: each prompt once, and the responses to it that are
            sampled side by side.
    """

    tokens: int
    rows: int
    response_tokens: int
    patches: int
    views: int
    row_tokens: int
    cached_tokens: int


def largest_pass(
    *,
    groups: Sequence[PromptGroup],
    microbatches: MicrobatchCutter,
    prompts_per_minibatch: int,
    num_responses: int,
    max_response_tokens: int,
    views: int,
    sampled_rows: int,
) -> PassSizes:
    """Returns the sizes of a pass whose prompts are all as long as the longest of `groups`, and whose
    responses are as long as they may become.

    Args:
        groups: some of the run's prompts.
        microbatches: how a minibatch is cut.
        prompts_per_minibatch: as of TrainingSettings.
        num_responses: G.
        max_response_tokens: of the rollout.
        views: of the image that are scored with gradient.
        sampled_rows: responses that are sampled side by side.
    """
    prompt = max(group.prompt_ids.shape[0] for group in groups)
    patches = max(0 if group.patches is None else group.patches.shape[0] for group in groups)
    prompts = [prompt] * prompts_per_minibatch
    responses = [max_response_tokens] * (prompts_per_minibatch * num_responses)
    num_groups = max(stop - start for start, stop in microbatches.bounds(prompts, responses))
    rows = num_groups * num_responses
    return PassSizes(
        tokens=microbatches.count_tokens(prompts[:num_groups], responses[:rows]),
        rows=rows,
        response_tokens=rows * max_response_tokens,
        patches=num_groups * patches,
        views=views,
        row_tokens=prompt + max_response_tokens,
        cached_tokens=-(-sampled_rows // num_responses) * prompt
        + sampled_rows * max_response_tokens,
    )


def estimate_memory(
    *,
    policy: nn.Module,
    reference: nn.Module | None,
    make_optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
    sizes: PassSizes,
    half_precision: bool,
    shards: int = 1,
) -> MemoryEstimate:
    """Returns what a step will need; allocates nothing.

    Args:
        policy: a VisionLanguagePolicy, whose `model.config` has the sizes.
        reference: of the reference KL, if it is read.
        make_optimizer: of the run.
        sizes: of its largest pass.
        half_precision: passes run in 16 bits (trainer.precision).
        shards: devices that share one copy of all that stays; the policy is still whole here.
    """
    weights, optimizer = _bytes(_tensors(policy)), optimizer_bytes(policy, make_optimizer)
    width = 2 / _element_size(policy) if half_precision else 1.0
    copied = 0 if reference is None else _bytes(_tensors(reference, beside=policy))
    return MemoryEstimate(
        weights=weights // shards,
        gradient=_bytes(p for p in _tensors(policy) if p.requires_grad) // shards,
        optimizer=None if optimizer is None else optimizer // shards,
        reference=copied if shards == 1 else int(copied * width) // shards,
        gathered=0 if shards == 1 else int(weights * width),
        activations=sizes.views * activation_bytes(policy, sizes, half_precision=half_precision),
        head=head_bytes(policy, sizes),
        cache=cache_bytes(policy, sizes, half_precision=half_precision),
    )


def optimizer_bytes(
    policy: nn.Module,
    make_optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
) -> int | None:
    """The optimiser's state after a step, from a step on tensors without memory.

    None for an optimiser whose step reads numbers back, which such tensors do not have.
    """
    stand_ins = [
        nn.Parameter(torch.empty_like(p, device="meta"))
        for p in policy.parameters()
        if p.requires_grad
    ]
    for parameter in stand_ins:
        parameter.grad = torch.empty_like(parameter)
    optimizer = make_optimizer(stand_ins)
    try:
        optimizer.step()
    except (RuntimeError, NotImplementedError):
        return None
    states = (value for state in optimizer.state.values() for value in state.values())
    return _bytes(value for value in states if isinstance(value, Tensor))


def checkpoint_bytes(
    policy: nn.Module,
    make_optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
) -> int:
    """What a checkpoint takes on the disk: the weights that are trained, and the optimiser's state of them."""
    trained = _bytes(p for p in _tensors(policy) if p.requires_grad)
    return trained + (optimizer_bytes(policy, make_optimizer) or 0)


def activation_bytes(policy: Any, sizes: PassSizes, *, half_precision: bool) -> int:
    """What one view of a pass keeps between its forward and its backward pass.

    With gradient checkpointing that is the input of every layer, and all of one layer while it is
    computed again.
    """
    text, vision = policy.model.config.get_text_config(), policy.model.config.vision_config
    width = 2 if half_precision else _element_size(policy)
    head_channels = _head_channels(text)
    layer = _layer_bytes(
        hidden=text.hidden_size,
        query=text.num_attention_heads * head_channels,
        key=text.num_key_value_heads * head_channels,
        mlp=text.intermediate_size,
        width=width,
    )
    vision_layer = _layer_bytes(
        hidden=vision.hidden_size,
        query=vision.hidden_size,
        key=vision.hidden_size,
        mlp=vision.intermediate_size,
        width=width,
    )
    shared_keys = 2 * text.num_key_value_heads * head_channels * width
    decoder = _stack_bytes(
        text.num_hidden_layers,
        layer * sizes.tokens + shared_keys * sizes.rows * sizes.row_tokens,
        text.hidden_size * width * sizes.tokens,
        policy,
    )
    tower = 0
    if any(p.requires_grad for p in policy.adapter.vision_tower.parameters()):
        tower = _stack_bytes(
            vision.depth,
            vision_layer * sizes.patches,
            vision.hidden_size * width * sizes.patches,
            policy,
        )
    # Mixed precision casts each weight where it is used, and its backward pass reads the cast.
    cast = 0
    if half_precision and _element_size(policy) > width:
        num_parameters = sum(p.numel() for p in policy.model.parameters())
        num_layers = text.num_hidden_layers if policy.gradient_checkpointing else 1
        cast = width * num_parameters // num_layers
    return decoder + tower + cast


def head_bytes(policy: Any, sizes: PassSizes) -> int:
    """Two float32 matrices of (chunk, vocabulary) per view: log p and p, which logits and gradients share;
    and the gradient of the head itself, summed before it joins that of the other passes.
    """
    rows, weight = min(policy.head_chunk_size, sizes.response_tokens), policy.adapter.head_weight
    gradient = _FLOAT32 * weight.numel() if weight.requires_grad else 0
    return int(2 * _FLOAT32 * sizes.views * rows * weight.shape[0] + gradient)


def cache_bytes(policy: Any, sizes: PassSizes, *, half_precision: bool) -> int:
    """Keys and values of every layer for all that is sampled side by side."""
    text = policy.model.config.get_text_config()
    width = 2 if half_precision else _element_size(policy)
    row = 2 * text.num_hidden_layers * text.num_key_value_heads * _head_channels(text) * width
    return int(sizes.cached_tokens * row)


def _layer_bytes(*, hidden: int, query: int, key: int, mlp: int, width: int) -> int:
    """What one layer keeps per token.

    Norms: their input in float32 and in the working precision, and their output, twice. Attention:
    its projections, rotated, and its output. MLP: gate, its activation, up and their product.
    """
    norms = 2 * (_FLOAT32 + 2 * width) * hidden
    attention = (3 * query + 4 * key) * width
    return norms + attention + 4 * mlp * width


def _stack_bytes(num_layers: int, layer: int, boundary: int, policy: Any) -> int:
    if policy.gradient_checkpointing:
        return num_layers * boundary + layer
    return num_layers * layer


def _head_channels(text: Any) -> int:
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)


def _element_size(policy: nn.Module) -> int:
    return next(policy.parameters()).element_size()


def _tensors(module: nn.Module, *, beside: nn.Module | None = None) -> list[Tensor]:
    """Parameters and buffers, each once, without those of another module."""
    other = set() if beside is None else {id(each) for each in _tensors(beside)}
    found = {id(each): each for each in (*module.parameters(), *module.buffers())}
    return [each for key, each in found.items() if key not in other]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(each.numel() * each.element_size() for each in tensors)


def readable_bytes(size: int) -> str:
    for unit, name in ((_GIB, "GiB"), (1024**2, "MiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size / 1024:.0f} KiB"
