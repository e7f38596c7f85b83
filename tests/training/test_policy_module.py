"""How the optimiser steps on the device of a run, whichever device its state was saved on."""

from functools import partial

import pytest
import torch
from model_fixtures import noise_image, problem, tiny_policy

from papo.training import PolicyModule, ReferenceModule

ADAMW = partial(torch.optim.AdamW, lr=1e-3)


@pytest.mark.parametrize(
    ("make_optimizer", "saved", "on_gpu", "steps"),
    [
        (ADAMW, None, True, True),  # of an older run, or of the CPU
        (ADAMW, True, False, None),  # of a GPU
        (ADAMW, None, False, None),
        (partial(ADAMW, fused=False), None, True, False),
        (partial(ADAMW, foreach=True), None, True, None),
        (partial(torch.optim.SGD, lr=0.1), None, True, True),
    ],
)
def test_a_checkpoint_steps_as_this_device_does(make_optimizer, saved, on_gpu, steps):
    module = PolicyModule(policy=torch.nn.Linear(2, 2), make_optimizer=make_optimizer)
    groups = [{"fused": saved, "lr": 0.5}]
    module.restore_step(groups, on_gpu=on_gpu)
    assert groups == [{"fused": steps, "lr": 0.5}]


def test_on_a_cpu_an_optimizer_stays_as_it_was_made():
    module = PolicyModule(policy=torch.nn.Linear(2, 2), make_optimizer=ADAMW)
    made = ADAMW(module.policy.parameters())
    [group], [plain] = module.configure_optimizers().param_groups, made.param_groups
    assert {k: v for k, v in group.items() if k != "params"} == {
        k: v for k, v in plain.items() if k != "params"
    }


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_a_reference_in_half_precision_scores_as_autocast_does_to_the_bit(family):
    policy = tiny_policy(family)
    wide, narrow = ReferenceModule(policy), ReferenceModule(policy, half=torch.bfloat16)
    assert wide.fingerprint == narrow.fingerprint
    assert sum(p.nbytes for p in narrow.parameters()) < 0.7 * sum(
        p.nbytes for p in wide.parameters()
    )
    groups = policy.encode([problem(images=(noise_image(90, 60),))])
    ids = torch.randint(5, 200, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        scores = [one.score(groups, ids, torch.ones_like(ids).bool()) for one in (wide, narrow)]
    assert torch.equal(*scores)
