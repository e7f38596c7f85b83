"""FlexAttention over a packed row: its mask is checked on any machine, its gradient needs a GPU."""

import pytest
import torch
from model_fixtures import tiny_policy
from scoring_cases import (
    all_plain_logprobs,
    assert_equal_gradients,
    case,
    gradients,
    in_true_float64,
    loss,
)

from papo.models.flex_packing import packed_block_mask, packed_flex_attention


@torch.no_grad()
def test_flex_equals_a_plain_forward(family, monkeypatch):
    policy = in_true_float64(tiny_policy(family, scoring="flex"), monkeypatch)
    groups, ids, mask = case(policy)
    got = policy.score(groups, ids, mask)["image"].logprobs
    expected = all_plain_logprobs(policy, groups, ids, mask)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_the_mask_is_the_one_written_out():
    # Two prompts (2 and 1 tokens), then the responses a, b of the first and c of the second.
    owner = torch.tensor([0, 0, 1, 2, 2, 3, 4, 4])
    continues = torch.tensor([-1, -1, -1, 0, 0, 0, 1, 1])
    seen = {0: [0], 1: [0, 1], 2: [2], 3: [0, 1, 3], 4: [0, 1, 3, 4], 5: [0, 1, 5]}
    seen |= {6: [2, 6], 7: [2, 6, 7]}
    keys = torch.eye(8)[:, None]  # what a row attends to is what its output is made of
    output = packed_flex_attention(
        torch.zeros(8, 1, 8),
        keys,
        keys,
        block_mask=packed_block_mask(owner, continues),
        scaling=1.0,
    )
    for row, columns in seen.items():
        assert output[row, 0].nonzero()[:, 0].tolist() == columns


def test_gradient_on_a_cpu_is_refused(family):
    policy = tiny_policy(family, scoring="flex")
    groups, ids, mask = case(policy)
    with pytest.raises(ValueError, match=r"model\.scoring=auto"):
        policy.score(groups, ids, mask)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_gradients_on_a_gpu_equal_the_padded_ones(family, gradient_checkpointing):
    results = {}
    for scoring in ("padded", "split", "flex"):
        settings = {"gradient_checkpointing": gradient_checkpointing, "scoring": scoring}
        policy = tiny_policy(family, **settings).cuda()
        groups, ids, mask = case(policy)
        logprobs = policy.score(groups, ids.cuda(), mask.cuda())["image"].logprobs
        results[scoring] = logprobs.detach(), gradients(policy, loss(logprobs))
    for scoring in ("split", "flex"):
        torch.testing.assert_close(results[scoring][0], results["padded"][0], rtol=0, atol=1e-4)
        assert_equal_gradients(
            results[scoring][1], results["padded"][1], language=1e-3, vision=1e-3
        )
