"""With states, with windows and with tiles, a run that goes on after a checkpoint ends as the uninterrupted one: to the bit."""

import pytest
import torch
from lab_module import lab_module, train
from model_fixtures import noise_image, problem, tiny_policy

from papo.training.checkpoints import RolloutCheckpoint, checkpoint_path
from papo.types import Rewards

SMALL = dict.fromkeys(
    ("num_rollouts", "prompts_per_rollout", "prompts_per_minibatch", "prompts_per_microbatch"), 2
)


class Pictured:
    """Problems with a picture of noise each."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return problem(images=(noise_image(56, 56, index),), id=f"p{index}")


def rewarded(problems, texts):
    total = torch.arange(len(texts)).float() % 3
    return Rewards(total=total, correct=total > 0)


def trained(family, folder, *, first=None):
    """The weights before and after two rollouts, or after those that follow a checkpoint."""
    module = lab_module(
        folder,
        policy=tiny_policy(family, scoring="auto", num_layers=4 if family == "qwen3_5" else 2),
        source=Pictured(),
        reward=rewarded,
        **SMALL,
    )
    module.policy_module.make_optimizer = lambda weights: torch.optim.AdamW(weights, lr=1e-3)
    module.collector.engine.max_response_tokens = 6
    before = {name: one.clone() for name, one in module.policy_module.policy.state_dict().items()}
    after = train(
        module,
        folder,
        RolloutCheckpoint(every_rollouts=1, keep_last=2),
        checkpoint=None if first is None else checkpoint_path(folder / "checkpoints", first),
    )
    return before, after


@pytest.mark.parametrize("family", ["qwen3_5", "gemma3", "gemma4", "smolvlm"])
def test_a_run_goes_on_to_the_same_bits(family, tmp_path):
    before, after = trained(family, tmp_path)
    assert any(not torch.equal(before[name], one) for name, one in after.items())
    _, again = trained(family, tmp_path, first=1)
    assert all(torch.equal(again[name], one) for name, one in after.items())
