"""Which weights a small update moves, against Python's own floats and against AdamW itself."""

import math

import pytest
import torch
from torch import nn

from papo.training.precision import check_updates_arrive, share_that_stays


def stays_by_definition(weight, step, bits):
    """Whether |w| +- step rounds to w with so many significant bits, one weight at a time."""
    if weight == 0:
        return False
    exponent = math.frexp(abs(weight))[1]
    spacing = 2.0 ** (exponent - bits)

    def nearest(value):
        return round(value / spacing) * spacing

    return nearest(abs(weight) + step) == abs(weight) == nearest(abs(weight) - step)


@pytest.mark.parametrize(("dtype", "bits"), [(torch.bfloat16, 8), (torch.float16, 11)])
@pytest.mark.parametrize("step", [1e-6, 3e-4])
def test_the_share_is_that_of_the_definition(dtype, bits, step):
    generator = torch.Generator().manual_seed(0)
    weights = (0.05 * torch.randn(2000, generator=generator)).to(dtype)
    # Below a power of two the next number down is half as far: the definition holds within one.
    expected = sum(stays_by_definition(float(w), step, bits) for w in weights) / len(weights)
    got = share_that_stays([nn.Parameter(weights)], step=step, dtype=None)
    assert got == pytest.approx(expected, abs=0.002)


def test_golden_values_by_hand():
    # Around 1 bfloat16 is spaced by 1/128 above and 1/256 below: 1 - 1/512 is halfway and rounds to even, 1.
    one = [nn.Parameter(torch.ones(1, dtype=torch.bfloat16))]
    assert share_that_stays(one, step=0.9 / 512, dtype=None) == 1.0
    assert share_that_stays(one, step=1.1 / 512, dtype=None) == 0.0


@pytest.mark.parametrize("learning_rate", [1e-6, 3e-4, 1e-2])
def test_adamw_leaves_as_many_weights_as_foretold(learning_rate):
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter((0.05 * torch.randn(4000, generator=generator)).bfloat16())
    before = weight.detach().clone()
    foretold = share_that_stays([weight], step=learning_rate, dtype=None)
    optimizer = torch.optim.AdamW([weight], lr=learning_rate, weight_decay=0.0)
    weight.grad = torch.randn(4000, generator=generator).bfloat16()
    optimizer.step()
    assert float((weight == before).float().mean()) == pytest.approx(foretold, abs=0.03)


def parameter(dtype, scale=0.05):
    generator = torch.Generator().manual_seed(0)
    return nn.Parameter((scale * torch.randn(1000, generator=generator)).to(dtype))


@pytest.mark.parametrize(
    ("dtype", "precision"),
    [(torch.float32, "bf16-true"), (torch.float32, "16-true"), (torch.bfloat16, "bf16-mixed")],
)
def test_published_updates_need_weights_in_float32(dtype, precision):
    with pytest.raises(ValueError, match=r"optimizer\.lr=1e-06"):
        check_updates_arrive([parameter(dtype)], learning_rate=1e-6, precision=precision)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed", "64-true"])
def test_weights_in_float32_are_never_refused(precision):
    weights = [parameter(torch.float32)]
    assert check_updates_arrive(weights, learning_rate=1e-6, precision=precision) is None


def test_updates_large_enough_are_let_through_with_a_word():
    weights = [parameter(torch.float32)]
    said = check_updates_arrive(weights, learning_rate=3e-4, precision="bf16-true")
    assert said is not None
    assert "optimizer.lr=0.0003" in said


def test_adapters_in_float32_do_not_ask_what_lies_beside_them():
    adapters = [parameter(torch.float32), nn.Parameter(torch.zeros(1000))]
    assert check_updates_arrive(adapters, learning_rate=1e-6, precision="bf16-mixed") is None


def test_adapters_in_half_precision_lose_the_half_that_does_not_begin_at_zero():
    adapters = [parameter(torch.float32), nn.Parameter(torch.zeros(1000))]
    with pytest.raises(ValueError, match=r"^(4|5)\d\.\d % of"):
        check_updates_arrive(adapters, learning_rate=1e-6, precision="bf16-true")
