"""Responses that another program drew: what it says of them is kept apart from what the policy says."""

import math
from dataclasses import replace

import pytest
import torch
from lab_module import NUM_RESPONSES, lab_module, train

SHIFT = 0.25


class Shifted:
    """Draws as the policy does and says e^-1/4 of its probabilities; every other response was drawn by a server."""

    def __init__(self, sampler):
        self.sampler, self.followed = sampler, []

    def follow(self, source, version):
        self.followed.append((source, version))

    def sample(self, groups, num_responses, seeds):
        found = self.sampler.sample(groups, num_responses, seeds)
        theirs = torch.where(found.mask, found.logprobs - SHIFT, 0.0)
        from_server = torch.arange(len(found.texts)) % 2 == 0
        return replace(found, logprobs=theirs, behaviour_logprobs=theirs, from_server=from_server)


def served(tmp_path, **settings):
    module = lab_module(tmp_path, **settings)
    module.collector.engine = Shifted(module.collector.engine)
    module.collector.weights = object()
    return module


def mixed(problems, texts):
    """Of the first two prompts of a round all answers are wrong."""
    from papo.types import Rewards

    total = (torch.arange(len(texts)) % 2).float()
    total[: 2 * NUM_RESPONSES] = 0.0
    return Rewards(total=total, correct=total > 0.5)


@pytest.mark.parametrize("settings", [{}, {"max_resample": 3, "reward": mixed}])
def test_old_probabilities_are_the_policys_and_the_engines_are_kept(tmp_path, settings):
    module = served(tmp_path, **settings)
    rollout = module.collector.collect(0, 0, progress=0.0)
    batch = rollout.batch
    if settings:
        assert rollout.resample_rounds > 0
    with torch.no_grad():
        own = module.policy_module.policy.score(
            batch.groups, batch.response_ids, batch.response_mask
        )["image"].logprobs
    torch.testing.assert_close(batch.old_logprobs, own, rtol=0, atol=1e-5)
    # Rows of one response would not be SHIFT apart from those of another.
    difference = (batch.old_logprobs - batch.behaviour_logprobs)[batch.response_mask]
    torch.testing.assert_close(difference, torch.full_like(difference, SHIFT), rtol=0, atol=1e-4)
    agreement = rollout.agreement.metrics()
    assert agreement["rollout/logprob_difference_mean"] == pytest.approx(SHIFT, abs=1e-5)
    assert agreement["rollout/logprob_difference_max"] == pytest.approx(SHIFT, abs=1e-4)
    for kind in ("mean", "min", "max"):
        assert agreement[f"rollout/ratio_{kind}"] == pytest.approx(math.exp(SHIFT), abs=1e-3)
    assert agreement["rollout/local"] == 0.5


def test_the_engine_is_told_before_every_rollout_and_by_its_number(tmp_path):
    module = served(tmp_path, num_rollouts=3)
    train(module, tmp_path)
    engine, weights = module.collector.engine, module.collector.weights
    assert engine.followed == [(weights, "0"), (weights, "1"), (weights, "2")]
    assert module.last_step.metrics["policy/ratio_mean"] == pytest.approx(1.0, abs=1e-4)


def test_an_engine_that_is_the_policy_has_nothing_to_agree_with(tmp_path):
    rollout = lab_module(tmp_path).collector.collect(0, 0, progress=0.0)
    assert rollout.agreement is None
    assert rollout.batch.behaviour_logprobs is None
