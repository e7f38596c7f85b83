"""Rows that share a prompt decode as rows with a prompt of their own, and hold it once."""

import pytest
import torch
from model_fixtures import mixed_problems, tiny_policy
from scoring_cases import in_true_float64

from papo.models.shared_decoding import SPARE_TOKENS

NUM_RESPONSES = 3
# Which rows go on after which token: some of every prompt, then one prompt altogether.
KEPT = {2: [0, 2, 3, 4, 7], 4: [1, 2, 3, 4], 5: [2, 3]}


def decode(policy, continued, dtype, tokens=8):
    """The hidden states of each step, with rows dropped on the way and one row finished."""
    generator = torch.Generator().manual_seed(0)
    groups = policy.encode(mixed_problems())
    prefix = continued(policy.prefill(groups))
    rows = torch.arange(len(groups) * NUM_RESPONSES)
    ids = torch.randint(97, 122, (len(rows), tokens), generator=generator)
    states = [prefix.last_hidden]
    for step in range(tokens):
        if step in KEPT:
            kept = torch.tensor(KEPT[step])
            prefix, rows = prefix.select(kept), rows[kept]
        mask = torch.ones(len(rows), 1, dtype=torch.bool)
        if step == 1:
            mask[1] = False  # a finished row reads padding until it is dropped
        policy.extend(prefix, ids[rows, step : step + 1], mask)
        states.append(prefix.last_hidden)
    assert all(state.dtype == dtype for state in states)
    return states, prefix


@torch.no_grad()
@pytest.mark.parametrize(
    ("attn_implementation", "tolerance"),
    [("sdpa", 1e-12), ("eager", 1e-4)],  # transformers' eager softmax is in float32
)
def test_shared_prompts_equal_prompts_of_ones_own(
    family, attn_implementation, tolerance, monkeypatch
):
    policy = in_true_float64(tiny_policy(family), monkeypatch)
    policy.model.set_attn_implementation(attn_implementation)
    shared, _ = decode(policy, lambda prefix: prefix.share(NUM_RESPONSES), torch.float64)
    expanded, _ = decode(policy, lambda prefix: prefix.expand(NUM_RESPONSES), torch.float64)
    for got, expected in zip(shared, expanded, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=tolerance)


@torch.no_grad()
def test_half_precision_stays_half_precision(family):
    policy = tiny_policy(family).to(torch.bfloat16)
    shared, _ = decode(policy, lambda prefix: prefix.share(NUM_RESPONSES), torch.bfloat16)
    expanded, _ = decode(policy, lambda prefix: prefix.expand(NUM_RESPONSES), torch.bfloat16)
    for got, expected in zip(shared, expanded, strict=True):
        torch.testing.assert_close(got, expected, rtol=0.1, atol=0.1)


@torch.no_grad()
def test_a_prompt_is_held_once_and_let_go_with_its_last_row():
    policy = tiny_policy()
    groups = policy.encode(mixed_problems())
    longest = max(group.prompt_ids.shape[0] for group in groups)
    prefix = policy.prefill(groups).share(NUM_RESPONSES)
    assert {layer.shape[:3] for layer in prefix.prompts.keys} == {(3, 2, longest)}
    policy.extend(prefix, torch.full((9, 1), 97), torch.ones(9, 1, dtype=torch.bool))
    assert prefix.own.length == 1
    assert {layer.shape for layer in prefix.own.keys} == {(9, 2, SPARE_TOKENS, 16)}
    two_prompts = prefix.select(torch.tensor([0, 1, 6]))
    assert {layer.shape[0] for layer in two_prompts.prompts.values} == {2}
    assert two_prompts.own.bias.shape == (3, longest + SPARE_TOKENS)
    assert {layer.shape[0] for layer in two_prompts.own.values} == {3}


@torch.no_grad()
def test_layers_that_see_a_window_get_prompts_of_their_own():
    policy = tiny_policy()
    prefix = policy.prefill(policy.encode(mixed_problems()))
    prefix.cache.layers[0].__class__ = type("Windowed", (type(prefix.cache.layers[0]),), {})
    shared = prefix.share(NUM_RESPONSES)
    assert shared.prompts is None
    assert shared.cache.layers[1].keys.shape[0] == 9
