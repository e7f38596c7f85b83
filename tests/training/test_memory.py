"""The estimate of memory: exact where tensors can be counted, within a factor where they cannot."""

from functools import partial

import pytest
import torch
from lab_module import lab_module, lab_policy, lab_problems
from model_fixtures import tiny_policy

from papo.models import decode_weights
from papo.training import ReferenceModule, estimate_memory, largest_pass, longest_prompt
from papo.training.activations import PassSizes
from papo.training.memory import optimizer_bytes

ADAMW = partial(torch.optim.AdamW, lr=1e-3)
LORA = {"language": {"r": 4, "alpha": 8, "targets": ["q_proj"]}}
SIZES = PassSizes(
    tokens=300,
    prompt_tokens=200,
    rows=4,
    response_tokens=100,
    patches=64,
    views=1,
    row_tokens=75,
    cached_tokens=600,
    sampled_rows=4,
)


def estimate(policy, reference=None, make_optimizer=ADAMW, half_precision=False, **sizes):
    sizes = {name: sizes.get(name, getattr(SIZES, name)) for name in SIZES.__slots__}
    return estimate_memory(
        model=policy.model,
        sizes=PassSizes(**sizes),
        make_optimizer=make_optimizer,
        has_reference=reference is not None,
        half_precision=half_precision,
        checkpointing=policy.gradient_checkpointing,
        head_chunk_size=policy.head_chunk_size,
        on_gpu=False,
    )


def held(tensors):
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


@pytest.mark.parametrize("settings", [{}, {"freeze_vision": True}, {"lora": LORA}])
@pytest.mark.parametrize(
    "make_optimizer",
    [ADAMW, partial(torch.optim.SGD, lr=0.1), partial(torch.optim.SGD, lr=0.1, momentum=0.9)],
)
def test_what_stays_is_counted_to_the_byte(settings, make_optimizer):
    policy = lab_policy(**settings)
    reference = ReferenceModule(policy)
    got = estimate(policy, reference, make_optimizer)
    own = [*policy.parameters(), *policy.buffers()]
    assert got.weights == held(own)
    assert got.reference == held([*own, *reference.parameters(), *reference.buffers()]) - held(own)

    trained = [p for p in policy.parameters() if p.requires_grad]
    optimizer = make_optimizer(trained)
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert got.gradient == held(p.grad for p in trained)
    states = [v for state in optimizer.state.values() for v in state.values()]
    assert got.optimizer == held(v for v in states if isinstance(v, torch.Tensor))


def test_adapters_need_no_reference_and_a_frozen_tower_is_shared():
    copied, shared, frozen = (
        estimate(policy, ReferenceModule(policy)).reference
        for policy in (lab_policy(), lab_policy(lora=LORA), lab_policy(freeze_vision=True))
    )
    assert copied > frozen > shared == 0


def test_an_optimizer_that_cannot_be_told_is_said_to_be_unknown():
    policy = lab_policy()
    make_optimizer = partial(torch.optim.Adafactor, lr=1e-3)
    assert optimizer_bytes([*policy.parameters()], make_optimizer) == (None, 0)
    assert "optimizer unknown" in estimate(policy, make_optimizer=make_optimizer).summary()


@pytest.mark.parametrize(
    ("size", "part"),
    [
        ("tokens", "activations"),
        ("rows", "activations"),
        ("patches", "activations"),
        ("views", "activations"),
        ("views", "head"),
        ("response_tokens", "head"),
        ("row_tokens", "activations"),
        ("cached_tokens", "cache"),
        ("sampled_rows", "drawing"),
    ],
)
def test_larger_passes_need_more(size, part):
    policy = lab_policy()
    larger = estimate(policy, **{size: 10 * getattr(SIZES, size)})
    assert getattr(larger, part) > getattr(estimate(policy), part)


def test_the_head_is_bounded_by_its_chunk_and_the_cache_by_its_precision():
    policy = lab_policy(head_chunk_size=10)
    assert estimate(policy).head == estimate(policy, response_tokens=10).head
    assert estimate(policy).cache == 2 * estimate(policy, half_precision=True).cache


def read_with(policy):
    """What holds the numbers that tokens are read with, after one of them."""
    with torch.no_grad(), policy.decoding(static=False):
        prefix = policy.prefill(policy.encode([lab_problems()[0]])).share(2)
        policy.next_token_logprobs(prefix.last_hidden)
        policy.extend(prefix, torch.zeros(2, 1, dtype=torch.long), torch.ones(2, 1, dtype=bool))
        decoding = policy.reader.decoding
        held = [decoding.head.weight]
        for layer in decoding.step.layers:
            for part in (*layer.mixer.qkv, layer.mixer.output, *layer.gate_up, layer.down):
                held += [part.weight, *([] if part.bias is None else [part.bias])]
    return held


def test_what_tokens_are_read_with_is_counted_as_it_is_held():
    policy = lab_policy()
    with torch.autocast("cpu", torch.bfloat16):
        held = read_with(policy)
    assert estimate(policy, half_precision=True).decoding == sum(one.nbytes for one in held)
    assert estimate(policy).decoding == 0


def test_matrices_in_another_order_are_counted(monkeypatch):
    if not decode_weights.can_pack():
        pytest.skip("this PyTorch has no oneDNN")
    policy = lab_policy()
    monkeypatch.setattr(decode_weights, "PACKED_FROM", 4000)
    held = [one for one in read_with(policy) if one.layout != torch.strided]
    assert held
    assert estimate(policy).decoding == sum(4 * one.numel() for one in held)


def test_the_cache_is_that_of_the_sampler():
    """2 layers, 2 key heads of 16 channels, keys and values, float32."""
    assert estimate(tiny_policy()).cache == 600 * 2 * 2 * 2 * 16 * 4


def test_an_update_and_a_rollout_are_not_added_up():
    got = estimate(lab_policy())
    static = got.weights + got.optimizer
    assert got.peak == static + got.gradient + got.activations + got.head
    assert estimate(lab_policy(), cached_tokens=10**8).peak > static + 10**9


def test_the_largest_pass_follows_the_budget(tmp_path):
    def largest(**settings):
        module = lab_module(tmp_path, **settings)
        collector = module.collector
        prompt, patches = longest_prompt(collector.policy.encode(collector.prompts.take(0, 2)))
        sizes = largest_pass(
            prompt_tokens=prompt,
            patches=patches,
            microbatches=collector.microbatches,
            prompts_per_minibatch=4,
            num_responses=4,
            max_response_tokens=24,
            views=2,
            sampled_rows=16,
        )
        return prompt, sizes

    prompt, whole = largest()
    assert (whole.tokens, whole.rows, whole.patches) == (4 * (prompt + 4 * 24), 16, 4 * 16)
    assert whole.row_tokens == prompt + 24
    # 16 rows are the 4 responses to each of 4 prompts, which are cached once.
    assert whole.cached_tokens == 4 * prompt + 16 * 24
    budget = 2 * (prompt + 4 * 24) + 1
    _, half = largest(prompts_per_microbatch=None, tokens_per_microbatch=budget)
    assert (half.tokens, half.rows, half.patches) == (budget - 1, 8, 2 * 16)
    _, one = largest(prompts_per_microbatch=None, tokens_per_microbatch=1)
    assert one.rows == 4


def test_the_estimate_is_one_line():
    policy = lab_policy()
    got = estimate(policy, ReferenceModule(policy))
    line = got.summary()
    assert "\n" not in line
    for word in ("weights", "gradient", "optimizer", "reference", "activations", "head", "cache"):
        assert f"{word} " in line
    assert "1.3 MiB" in line
    assert "about" in line
    assert got.peak_moment in line


def test_the_copy_that_is_the_reference_is_as_wide_as_passes_read_it():
    for policy in (tiny_policy(), tiny_policy(freeze_vision=True), lab_policy(lora=LORA)):
        reference = ReferenceModule(policy, half=torch.bfloat16)
        own = [*policy.parameters(), *policy.buffers()]
        copied = held([*own, *reference.parameters(), *reference.buffers()]) - held(own)
        assert estimate(policy, reference, half_precision=True).reference == copied


def test_a_step_on_a_gpu_copies_nothing_unless_another_way_is_chosen():
    trained = [*lab_policy().parameters()]
    whole = held(trained)
    state, made = optimizer_bytes(trained, ADAMW, on_gpu=True)
    assert (state > 2 * whole, made) == (True, 0)
    assert optimizer_bytes(trained, partial(ADAMW, foreach=True), on_gpu=True) == (state, whole)
    # A fused one cannot be made of tensors without memory.
    assert optimizer_bytes(trained, partial(ADAMW, fused=True), on_gpu=True) == (state, 0)
    assert 0 < optimizer_bytes(trained, ADAMW)[1] < whole
