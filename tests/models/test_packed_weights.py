"""On a CPU large matrices are held in the order in which few rows are multiplied with them."""

from collections import Counter

import pytest
import torch
from model_fixtures import mixed_problems, tiny_policy
from torch.utils._python_dispatch import TorchDispatchMode

from papo.models import decode_weights
from papo.models.lora import LoraPart, add_adapters
from papo.rollout import SharedPrefillSampler
from papo.types import derive_seeds

pytestmark = pytest.mark.skipif(
    not decode_weights.can_pack(), reason="this PyTorch has no oneDNN, or other operators of it"
)
SOME = 1000
"""Numbers in a matrix: those of a tiny policy's MLP and head have more, its norms and biases fewer."""


class Calls(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def sample(policy, num_tokens=24):
    groups = policy.encode(mixed_problems())
    engine = SharedPrefillSampler(
        policy=policy,
        temperature=1.0,
        top_p=1.0,
        top_k=None,
        max_rows=64,
        max_response_tokens=num_tokens,
    )
    with Calls() as calls:
        responses = engine.sample(groups, 4, derive_seeds(1, len(groups)))
    return responses, calls.names


def adapted(policy):
    pytest.importorskip("peft")
    torch.manual_seed(0)
    add_adapters(policy.model, {"language": LoraPart(r=4, alpha=8, targets=("up_proj", "q_proj"))})
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1)
    return policy


@pytest.mark.parametrize("adapters", [False, True])
def test_what_is_written_is_what_the_matrices_as_they_are_write(family, adapters, monkeypatch):
    policy = adapted(tiny_policy(family)) if adapters else tiny_policy(family)
    monkeypatch.setattr(decode_weights, "PACKED_FROM", 2**62)
    expected, calls = sample(policy)
    assert calls["_linear_pointwise"] == calls["_reorder_linear_weight"] == 0
    monkeypatch.setattr(decode_weights, "PACKED_FROM", SOME)
    got, calls = sample(policy)
    assert calls["_linear_pointwise"] > 0
    assert got.texts == expected.texts
    assert torch.equal(got.ids, expected.ids)
    torch.testing.assert_close(got.logprobs, expected.logprobs, rtol=0, atol=1e-5)


def test_a_matrix_is_put_in_order_once_a_rollout_and_layers_of_one_input_are_one(monkeypatch):
    policy = tiny_policy()
    monkeypatch.setattr(decode_weights, "PACKED_FROM", SOME)
    (_, few), (_, many) = sample(policy, 8), sample(policy, 24)
    layers = len(policy.adapter.language_model.layers)
    products = 4 * layers + 1  # qkv, output, gate and up, down; head
    assert few["_reorder_linear_weight"] == many["_reorder_linear_weight"] == products
    assert many["_linear_pointwise"] - few["_linear_pointwise"] == 16 * products


def test_the_weights_are_those_of_now(monkeypatch):
    monkeypatch.setattr(decode_weights, "PACKED_FROM", SOME)
    policy = tiny_policy()
    before, _ = sample(policy)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    now, _ = sample(policy)
    assert not torch.equal(before.ids, now.ids)
    scored = policy.score(policy.encode(mixed_problems()), now.ids, now.mask)["image"].logprobs
    torch.testing.assert_close(scored[now.mask], now.logprobs[now.mask], rtol=0, atol=1e-5)


def test_a_pytorch_without_the_operators_multiplies_as_ever(monkeypatch):
    expected, _ = sample(tiny_policy(), 8)
    monkeypatch.setattr(decode_weights, "PACKED_FROM", SOME)
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    got, calls = sample(tiny_policy(), 8)
    assert calls["_linear_pointwise"] == 0
    assert torch.equal(got.ids, expected.ids)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_another_precision_is_read_as_it_is(dtype):
    assert not decode_weights.is_packed(torch.zeros(1024, 1024, dtype=dtype))
    assert decode_weights.is_packed(torch.zeros(1024, 1024))
    assert not decode_weights.is_packed(torch.zeros(16, 16))
