"""Tokens drawn from the most likely ones alone are those that the whole vocabulary in order would give."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from papo.rollout import draw_tokens
from papo.rollout.drawing import HEAD_TOKENS, draw_from_head, draw_from_sorted

VOCABULARY = 6 * HEAD_TOKENS


def rows(seed, *, levels, spread, count=6, vocabulary=VOCABULARY):
    """Log-probabilities, of which many are equal where there are few levels."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, vocabulary, generator=generator) * spread
    if levels:
        logits = (logits * levels).round() / levels
    logits[:, ::7] = -torch.inf
    return logits.log_softmax(dim=-1), torch.rand(count, generator=generator, dtype=torch.float64)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    levels=st.sampled_from([0, 1, 2, 8]),
    spread=st.sampled_from([0.0, 0.3, 1.0, 3.0, 8.0, 100.0]),
    top_p=st.sampled_from([0.01, 0.3, 0.9, 0.99, 1.0]),
    top_k=st.sampled_from([None, 1, 2, 50, 700]),
)
def test_the_same_tokens_as_with_all_sorted(seed, levels, spread, top_p, top_k):
    logprobs, draws = rows(seed, levels=levels, spread=spread)
    expected = draw_from_sorted(logprobs, draws, top_p, top_k)
    assert torch.equal(draw_tokens(logprobs, draws, top_p, top_k), expected)
    tokens, certain = draw_from_head(logprobs, draws, top_p, top_k)
    if certain is None or bool(certain):
        assert torch.equal(tokens, expected)


def test_of_equal_tokens_the_smaller_id_comes_first():
    logprobs = torch.full((1, VOCABULARY), -torch.inf)
    equal = [5000, 17, 3000, 4]
    logprobs[0, equal] = torch.tensor(0.25).log()
    draws = torch.tensor([0.1])
    got = [int(draw_tokens(logprobs, draws + 0.25 * i, 0.999)) for i in range(4)]
    assert got == sorted(equal)
    # Two of four equal ones: those with the smaller ids.
    got = {int(draw_tokens(logprobs, draws + 0.2 * i, 1.0, 2)) for i in range(5)}
    assert got == {4, 17}


@pytest.mark.parametrize(
    ("spread", "top_p", "top_k", "certain"),
    [(3.0, 0.9, None, True), (0.1, 0.9, None, False), (3.0, 1.0, 50, True), (0.0, 1.0, 50, False)],
)
def test_it_knows_when_the_head_is_not_enough(spread, top_p, top_k, certain):
    logprobs, draws = rows(0, levels=0, spread=spread)
    assert bool(draw_from_head(logprobs, draws, top_p, top_k)[1]) == certain


class Sorted(TorchDispatchMode):
    """Numbers that were sorted, and numbers read back from the device."""

    def __init__(self):
        super().__init__()
        self.sorted = self.read_back = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten.sort, torch.ops.aten.argsort):
            self.sorted += args[0].numel()
        self.read_back += func.overloadpacket is torch.ops.aten._local_scalar_dense
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("top_p", "top_k"), [(0.9, None), (0.9, 50), (1.0, 1)])
def test_the_vocabulary_is_not_sorted_and_nothing_read_back_but_one_answer(top_p, top_k):
    vocabulary = 152_000
    logprobs, draws = rows(1, levels=0, spread=8.0, count=2, vocabulary=vocabulary)
    with Sorted() as counted:
        draw_from_head(logprobs, draws, top_p, top_k)
    assert counted.sorted <= 2 * 2 * HEAD_TOKENS
    assert counted.read_back == 0
    with Sorted() as counted:
        draw_tokens(logprobs, draws, top_p, top_k)
    assert counted.sorted < vocabulary
    assert counted.read_back == 1
