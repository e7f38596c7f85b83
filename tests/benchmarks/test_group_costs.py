"""The shapes that are compared, and the operations counted for them."""

import pytest
import torch

from benchmarks.models import (
    build_model,
    build_word_tokenizer,
    calibrated_config,
    plain_logprobs,
    policy_of,
    problems,
    responses,
    step_config,
)
from benchmarks.scoring import WAYS, GroupCase, GroupScoring, group_flops

SMALL = GroupCase(prompt_tokens=40, response_tokens=5, num_responses=3, grid=(8, 12))


@pytest.fixture(scope="module")
def scoring():
    return GroupScoring(SMALL)


def counted_linear(model, call):
    """Operations of every linear layer and of the patch embedding, seen by hooks, in one call."""
    total = 0

    def count(module, inputs, output):
        nonlocal total
        total += 2 * module.weight.numel() * output.numel() // output.shape[-1]

    def count_patches(module, inputs, output):
        nonlocal total
        total += 2 * module.weight[0].numel() * output.numel()

    hooks = [
        module.register_forward_hook(
            count if isinstance(module, torch.nn.Linear) else count_patches
        )
        for module in model.modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv3d)
    ]
    try:
        with torch.no_grad():
            call()
    finally:
        for hook in hooks:
            hook.remove()
    return total


def attention_pairs(config, case):
    """(query, key) pairs of a vision tower and of one padded row, one by one."""
    cells = [
        (row // 2, column // 2) for row in range(case.grid[0]) for column in range(case.grid[1])
    ]
    side = 4  # image tokens along a window of 112 pixels
    windowed = sum(
        (a[0] // side, a[1] // side) == (b[0] // side, b[1] // side) for a in cells for b in cells
    )
    num_full = len(config.vision_config.fullatt_block_indexes)
    vision = num_full * len(cells) ** 2 + (config.vision_config.depth - num_full) * windowed
    length = case.prompt_tokens + case.response_tokens
    row = sum(key <= query for query in range(length) for key in range(length))
    prompt = sum(
        key <= query for query in range(case.prompt_tokens) for key in range(case.prompt_tokens)
    )
    response = sum(
        key <= query for query in range(case.prompt_tokens, length - 1) for key in range(length - 1)
    )
    return vision, row, prompt, response


@pytest.mark.parametrize("make_config", [step_config, calibrated_config])
def test_the_counted_operations_are_those_of_a_brute_force_count(make_config):
    tokenizer = build_word_tokenizer()
    config = make_config(tokenizer)
    model = build_model(config, tokenizer)
    policy = policy_of(model, tokenizer, scoring="padded")
    (group,) = policy.encode(
        problems(policy, grid=SMALL.grid, prompt_tokens=SMALL.prompt_tokens, count=1)
    )
    ids, mask = responses(SMALL.num_responses, SMALL.response_tokens)
    text, vision = config.text_config, config.vision_config
    flops = group_flops(config, SMALL)
    vision_pairs, row_pairs, prompt_pairs, response_pairs = attention_pairs(config, SMALL)
    vision_attention = 4 * vision.hidden_size * vision_pairs
    per_pair = 4 * text.hidden_size * text.num_hidden_layers
    size = SMALL.num_responses

    plain = counted_linear(model, lambda: plain_logprobs(model, group, ids))
    # The forward pass also predicts what follows the last token; nobody reads that.
    plain -= 2 * size * text.hidden_size * text.vocab_size
    assert flops.plain == plain + size * (vision_attention + per_pair * row_pairs)

    def score(scoring):
        other = policy_of(model, tokenizer, scoring=scoring)
        other.score((group,), ids, mask)

    # The chunked head is no linear layer.
    head = 2 * size * SMALL.response_tokens * text.hidden_size * text.vocab_size
    padded = counted_linear(model, lambda: score("padded")) + head
    assert flops.padded == padded + vision_attention + size * per_pair * row_pairs
    shared = counted_linear(model, lambda: score("twopass")) + head
    pairs = prompt_pairs + size * response_pairs
    assert flops.shared == shared + vision_attention + per_pair * pairs


def test_every_way_that_is_timed_computes_the_same(scoring):
    expected = scoring.logprobs("plain")
    for way in WAYS:
        torch.testing.assert_close(scoring.logprobs(way), expected, rtol=0, atol=1e-5)


def test_a_step_leaves_the_same_gradient_in_every_way(scoring):
    gradients = {}
    for way in ("plain", "shared"):
        scoring.step(way)
        gradients[way] = [p.grad.clone() for p in scoring.model.parameters()]
    for mine, theirs in zip(gradients["shared"], gradients["plain"], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-6)


def test_prompts_have_exactly_the_length_asked_for(scoring):
    policy = scoring.policies["shared"]
    for length in (40, 77):
        drawn = problems(policy, grid=(8, 12), prompt_tokens=length, count=2)
        assert [policy.prompt_length(each) for each in drawn] == [length, length]
    groups = policy.encode(drawn)
    slots = (groups[0].prompt_ids == policy.adapter.image_token_id).sum()
    assert int(slots) == 8 * 12 // 4
    assert not torch.equal(groups[0].prompt_ids, groups[1].prompt_ids)


def test_a_prompt_too_short_for_its_picture_is_an_error(scoring):
    with pytest.raises(ValueError, match=r"takes at least .* got prompt_tokens=10"):
        problems(scoring.policies["shared"], grid=(8, 12), prompt_tokens=10, count=1)


def test_no_response_ends_early(scoring):
    policy = scoring.policies["shared"]
    assert set(policy.end_token_ids) <= set(policy.banned_token_ids)
