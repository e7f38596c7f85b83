"""Rows of responses for the tests of methods: small, float64, of lengths from one token on."""

import torch

from papo.functional import zero_padding
from papo.objective import Blocks
from papo.types import RolloutBatch, ViewScores

LENGTHS = [5, 3, 1, 4, 5, 2, 2, 6]
NUM_RESPONSES = 2
MASK = torch.arange(max(LENGTHS))[None] < torch.tensor(LENGTHS)[:, None]


def draw(seed, *, low=0.0, high=1.0, mask=MASK):
    """A number for each token, 0 at padding."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(mask.shape, generator=generator, dtype=torch.float64)
    return zero_padding(low + (high - low) * values, mask)


def logprobs(seed, mask=MASK):
    return draw(seed, low=-3.0, high=-0.1, mask=mask)


def make_batch(old_views=None, *, rewards=None, mask=MASK, num_responses=NUM_RESPONSES, **more):
    """A rollout; `old_views` name log-probs or ViewScores."""
    given = torch.arange(mask.shape[0]) % 2 if rewards is None else rewards
    rewards = torch.as_tensor(given, dtype=torch.float64)
    return RolloutBatch(
        num_responses=num_responses,
        response_mask=mask,
        old_logprobs=logprobs(1, mask),
        advantages=(rewards * 2 - 1)[:, None] * mask,
        correct=rewards > 0.5,
        rewards=rewards,
        old_views={
            name: seen if isinstance(seen, ViewScores) else ViewScores(logprobs=seen)
            for name, seen in (old_views or {}).items()
        },
        **more,
    )


def blocks_of(batch, rollouts_per_minibatch=None):
    return Blocks(
        num_rollouts=batch.num_rollouts,
        num_responses=batch.num_responses,
        rollouts_per_minibatch=rollouts_per_minibatch or batch.num_rollouts,
    )
