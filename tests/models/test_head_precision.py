"""What is recorded of a sampled token is what scoring says of it, also in half precision."""

import pytest
import torch
from lab_module import lab_policy, lab_problems
from model_fixtures import tiny_policy

from papo.rollout import SharedPrefillSampler
from papo.types import derive_seeds


def differences(policy, groups, *, tokens, responses, half):
    """|scored - sampled| of every token, nats."""
    sampler = SharedPrefillSampler(
        policy=policy,
        temperature=policy.temperature,
        top_p=1.0,
        top_k=None,
        max_response_tokens=tokens,
        max_rows=256,
    )
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        drawn = sampler.sample(groups, responses, derive_seeds(1, len(groups)))
        scores = policy.score(groups, drawn.ids, drawn.mask)
    return (scores["image"].logprobs - drawn.logprobs)[drawn.mask].abs()


@pytest.mark.parametrize(("half", "bound"), [(True, 0.01), (False, 1e-5)])
def test_sampler_and_scorer_agree_on_the_lab_model(half, bound):
    policy = lab_policy()
    problems = lab_problems()
    groups = policy.encode([problems[index] for index in range(32)])
    found = differences(policy, groups, tokens=24, responses=8, half=half)
    assert found.numel() > 4000
    assert float(found.quantile(0.99)) <= bound


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_the_sampler_multiplies_what_the_scorer_multiplies(family, half):
    """The same states give the same numbers, whichever asks."""
    policy = tiny_policy(family, head_chunk_size=64)
    weight = policy.adapter.head_weight
    hidden = torch.randn(40, weight.shape[1], generator=torch.Generator().manual_seed(0))
    ids = torch.arange(40) + 97
    with torch.no_grad(), torch.autocast("cpu", dtype=half):
        sampled = policy.next_token_logprobs(hidden).gather(1, ids[:, None])[:, 0]
        scored = policy._statistics(hidden, None, ids[None], torch.ones(1, 40).bool(), False)
    assert sampled.dtype == torch.float32
    torch.testing.assert_close(scored.logprobs, sampled, rtol=0, atol=1e-5)
