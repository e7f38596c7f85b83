"""The estimate of memory: exact where tensors can be counted, within a factor where they cannot."""

from functools import partial

import pytest
import torch
from lab_module import lab_module, lab_policy
from model_fixtures import noise_image, problem, tiny_policy

from papo.training import ReferenceModule, estimate_memory, largest_pass
from papo.training.memory import PassSizes, activation_bytes, optimizer_bytes

ADAMW = partial(torch.optim.AdamW, lr=1e-3)
LORA = {"language": {"r": 4, "alpha": 8, "targets": ["q_proj"]}}
SIZES = PassSizes(
    tokens=300, rows=4, response_tokens=100, patches=64, views=1, row_tokens=75, cached_tokens=600
)


def estimate(policy, reference=None, make_optimizer=ADAMW, half_precision=False, **sizes):
    sizes = {name: sizes.get(name, getattr(SIZES, name)) for name in SIZES.__slots__}
    return estimate_memory(
        policy=policy,
        reference=reference,
        make_optimizer=make_optimizer,
        sizes=PassSizes(**sizes),
        half_precision=half_precision,
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
    assert optimizer_bytes(policy, make_optimizer) is None
    assert "optimizer unknown" in estimate(policy, make_optimizer=make_optimizer).summary()


def kept_by_autograd(policy, num_responses, num_tokens, image):
    """Bytes between forward and backward of one group, and the sizes of that pass."""
    [group] = policy.encode([problem(question="<image>" + "What? " * 10, images=(image,))])
    ids = torch.randint(5, 200, (num_responses, num_tokens))
    mask = torch.ones(ids.shape, dtype=torch.bool)
    own = {t.untyped_storage().data_ptr() for t in (*policy.parameters(), *policy.buffers())}
    # The tensors too: a freed address would be counted as the one that was there before.
    kept, alive = {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        policy.score([group], ids, mask, masked_view=False, full_vocabulary=False)
    prompt = group.prompt_ids.shape[0]
    sizes = PassSizes(
        tokens=prompt + ids.numel(),
        rows=num_responses,
        response_tokens=ids.numel(),
        patches=group.patches.shape[0],
        views=1,
        row_tokens=prompt + num_tokens,
        cached_tokens=prompt + num_responses * num_tokens,
    )
    return sum(kept.values()), sizes


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize(("responses", "tokens", "side"), [(4, 32, 70), (8, 64, 112), (4, 200, 70)])
def test_activations_are_within_a_factor_of_two(family, responses, tokens, side):
    image = noise_image(side, side)
    plain, sizes = kept_by_autograd(tiny_policy(family), responses, tokens, image)
    got = activation_bytes(tiny_policy(family), sizes, half_precision=False)
    assert plain / 2 < got < plain * 2

    checkpointed = tiny_policy(family, gradient_checkpointing=True)
    boundaries, sizes = kept_by_autograd(checkpointed, responses, tokens, image)
    # One of the two layers of each stack is there a second time, in full, in the backward pass.
    peak = boundaries + plain / 2
    assert peak / 2 < activation_bytes(checkpointed, sizes, half_precision=False) < peak * 2


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
        groups = collector.policy.encode(collector.prompts.take(0, 2))
        prompt = max(group.prompt_ids.shape[0] for group in groups)
        sizes = largest_pass(
            groups=groups,
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
    line = estimate(policy, ReferenceModule(policy)).summary()
    assert "\n" not in line
    for word in ("weights", "gradient", "optimizer", "reference", "activations", "head", "cache"):
        assert f"{word} " in line
    assert "1.3 MiB" in line
