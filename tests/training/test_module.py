"""The real module on the lab's real policy: what reaches the weights, and what does not."""

import pytest
import torch
from lab_module import NUM_RESPONSES, lab_module, lab_policy, parameters, reward_by_row, train

OFF = {"beta": 0.0, "gamma": 0.0, "eta_full": 0.0, "eta_masked": 0.0}


def uniform_reward(problems, texts):
    from papo.types import Rewards

    ones = torch.ones(len(texts))
    return Rewards(total=ones, correct=ones.bool())


@pytest.fixture(scope="module")
def initial():
    return parameters(lab_policy())


def change(before, after):
    return max(float((after[name] - before[name]).abs().max()) for name in before)


def test_without_reward_and_without_weights_nothing_moves(tmp_path, initial):
    module = lab_module(tmp_path, reward=uniform_reward, **OFF)
    assert change(initial, train(module, tmp_path)) == 0.0


def test_the_surrogate_alone_moves_the_policy(tmp_path, initial):
    module = lab_module(tmp_path, reward=reward_by_row(NUM_RESPONSES), num_rollouts=1, **OFF)
    assert change(initial, train(module, tmp_path)) > 0.0


@pytest.mark.parametrize(
    ("weight", "fidelity"),
    [
        ("gamma", {}),
        ("gamma", {"perception_estimator": "exact", "entropy": "exact"}),
        ("gamma", {"masked_policy": "old"}),
        ("gamma", {"masked_policy": "current_detached"}),
        ("eta_full", {}),
        ("eta_full", {"entropy": "exact"}),
        ("eta_masked", {}),
        ("eta_masked", {"entropy": "exact"}),
    ],
)
def test_each_weighted_term_alone_moves_the_policy(weight, fidelity, tmp_path, initial):
    module = lab_module(
        tmp_path, reward=uniform_reward, num_rollouts=1, **{**OFF, weight: 0.5}, **fidelity
    )
    assert change(initial, train(module, tmp_path)) > 0.0


def test_the_reference_kl_alone_pulls_a_policy_that_has_moved(tmp_path):
    """At the reference itself k3 has no gradient, so the policy is pushed away first."""
    module = lab_module(tmp_path, reward=uniform_reward, num_rollouts=1, **{**OFF, "beta": 0.5})
    policy = module.policy_module.policy
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.01 * torch.ones_like(parameter))
    moved = parameters(policy)
    assert change(moved, train(module, tmp_path)) > 0.0


def test_official_masked_entropy_is_a_constant_and_moves_nothing(tmp_path, initial):
    module = lab_module(
        tmp_path,
        reward=uniform_reward,
        num_rollouts=1,
        **{**OFF, "eta_masked": 0.5},
        masked_policy="old",
    )
    assert change(initial, train(module, tmp_path)) == 0.0


def test_the_perception_term_makes_the_policy_depend_on_the_image(tmp_path):
    """The sign end to end: with gamma alone, the same rollouts have a larger perception KL after it."""
    module = lab_module(
        tmp_path,
        reward=uniform_reward,
        num_rollouts=1,
        learning_rate=0.05,
        **{**OFF, "gamma": 1.0},
    )
    train(module, tmp_path)
    batch = module.last_step.rollout.batch
    with torch.no_grad():
        scores = module._score(batch)
        after = module.objective(batch, scores, minibatch=batch, progress=0.0)["perception_kl"]
    assert float(after) > module.last_step.metrics["loss/perception_kl"]


@pytest.mark.parametrize("average", ["token", "sequence"])
def test_micro_batches_change_nothing(average, tmp_path):
    settings = {"average": average, "entropy_average": average, "num_rollouts": 2}
    whole = lab_module(tmp_path, prompts_per_microbatch=4, **settings)
    parts = lab_module(tmp_path, prompts_per_microbatch=1, **settings)
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    expected, got = train(whole, tmp_path / "whole"), train(parts, tmp_path / "parts")
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-4, atol=1e-6)
    # On the first rollout both saw the same policy, so the same terms.
    rows = [
        (tmp_path / run / "metrics.csv").read_text().splitlines()[1].split(",")
        for run in ("whole", "parts")
    ]
    torch.testing.assert_close(
        torch.tensor([float(v) for v in rows[1]]), torch.tensor([float(v) for v in rows[0]])
    )


def test_each_minibatch_is_an_update(tmp_path):
    module = lab_module(tmp_path, prompts_per_minibatch=1, prompts_per_microbatch=1)
    train(module, tmp_path)
    assert module.update_step == 8
    assert module.rollout_step == 2
    assert module.prompts_drawn == 8


class ProgressSpy:
    """An objective that remembers how far along the run it was told to be."""

    def __init__(self, objective):
        self._objective = objective
        self.seen = []

    def __getattr__(self, name):
        return getattr(self._objective, name)

    def __call__(self, *arguments, progress, **named):
        self.seen.append(progress)
        return self._objective(*arguments, progress=progress, **named)


def test_schedules_are_read_at_the_share_of_rollouts_that_are_finished(tmp_path):
    """Three updates belong to one rollout: they do not use up three rollouts' worth of a schedule."""
    module = lab_module(
        tmp_path,
        reward=reward_by_row(NUM_RESPONSES),
        num_rollouts=2,
        prompts_per_rollout=3,
        prompts_per_minibatch=1,
        prompts_per_microbatch=1,
    )
    module.objective = spy = ProgressSpy(module.objective)
    train(module, tmp_path)
    assert spy.seen == [0.0, 0.0, 0.0, 0.5, 0.5, 0.5]


def test_the_reference_is_frozen_unsaved_and_made_only_when_read(tmp_path):
    without = lab_module(tmp_path, **{**OFF, "gamma": 0.1})
    assert without.collector.reference is None
    module = lab_module(tmp_path, beta=0.01)
    reference = module.collector.reference
    before = parameters(reference.policy)
    after = train(module, tmp_path)
    assert change(before, parameters(reference.policy)) == 0.0
    assert change(before, after) > 0.0
    assert not any(p.requires_grad for p in reference.policy.parameters())
    assert all(name.startswith("policy_module.") for name in module.state_dict())
    trained = {
        id(p) for group in module.trainer.optimizers[0].param_groups for p in group["params"]
    }
    assert not trained & {id(p) for p in reference.policy.parameters()}


def test_the_first_reference_kl_is_zero(tmp_path):
    module = lab_module(tmp_path, num_rollouts=1, beta=0.01)
    train(module, tmp_path)
    assert module.last_step.metrics["loss/kl_ref"] == pytest.approx(0.0, abs=1e-9)


def test_a_checkpoint_of_another_initial_policy_is_refused(tmp_path):
    module = lab_module(tmp_path, beta=0.01)
    checkpoint = {"loops": {}}
    module.on_save_checkpoint(checkpoint)
    policy = lab_policy()
    with torch.no_grad():
        next(policy.parameters()).add_(1e-3)
    other = lab_module(tmp_path, beta=0.01, policy=policy)
    with pytest.raises(ValueError, match="initial policy differs"):
        other.on_load_checkpoint(checkpoint)


def test_gradients_are_clipped_to_the_norm(tmp_path, initial):
    module = lab_module(
        tmp_path, learning_rate=1.0, max_grad_norm=1e-3, num_rollouts=1, prompts_per_minibatch=4
    )
    after = train(module, tmp_path)
    moved = torch.cat([(after[name] - initial[name]).flatten() for name in initial]).norm()
    assert module.last_step.metrics["update/grad_norm"] > 1e-3
    assert float(moved) == pytest.approx(1e-3, rel=1e-3)


def test_every_update_starts_without_the_gradient_of_the_last(tmp_path, monkeypatch):
    module = lab_module(tmp_path, prompts_per_minibatch=2, prompts_per_microbatch=2)
    policy, original, seen = module.policy_module.policy, module._terms, []

    def terms(*arguments):
        seen.append(all(p.grad is None or not p.grad.any() for p in policy.parameters()))
        return original(*arguments)

    monkeypatch.setattr(module, "_terms", terms)
    train(module, tmp_path)
    assert seen == [True] * 4
