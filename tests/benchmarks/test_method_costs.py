"""Steps of methods are compared under equal conditions, and the page has a row for every arm."""

import re

import pytest
import torch
from lab_module import REPOSITORY, parameters

from benchmarks.methods import Arm, arms, config_of, measure

pytestmark = pytest.mark.slow

SMALL = tuple(f"training.prompts_per_{what}=2" for what in ("rollout", "minibatch", "microbatch"))


def test_an_arm_and_grpo_see_the_same_responses_in_every_round_and_learn_nothing(tmp_path):
    compared = [Arm(config_of(arm, tmp_path, *SMALL)) for arm in ("grpo", "cppo")]
    before = [parameters(arm.module.policy_module.policy) for arm in compared]
    written = []
    for number in (1, 2):
        for arm in compared:
            arm.step()
            assert arm.module.last_step.rollout_step == number
            [part] = arm.steps[number - 1 :]
            assert 0 < part.sampling < part.whole
        ours, theirs = (arm.module.last_step.rollout.draft.responses.ids for arm in compared)
        assert torch.equal(ours, theirs)
        written.append(ours)
    assert not torch.equal(*(ids[:, :8] for ids in written))
    for arm, weights in zip(compared, before, strict=True):
        after = parameters(arm.module.policy_module.policy)
        assert all(torch.equal(after[name], weights[name]) for name in weights)
    # They are the sweep's arms, with its settings.
    assert "contrast" in compared[1].module.objective.terms
    assert compared[0].module.collector.num_responses == 8


def test_a_row_says_the_whole_step_and_what_is_left_without_sampling():
    rows = measure(1, ["noisyrollout"], *SMALL)
    assert [(row.benchmark, row.case) for row in rows] == [
        ("step of noisyrollout / step of grpo", "whole"),
        ("step of noisyrollout / step of grpo", "without sampling"),
    ]
    for row in rows:
        assert row.value > 0
        [ours], [theirs] = (row.details["seconds"][arm] for arm in ("noisyrollout", "grpo"))
        assert row.value == ours / theirs
    assert all(
        rows[1].details["seconds"][arm] < rows[0].details["seconds"][arm]
        for arm in ("noisyrollout", "grpo")
    )


def test_the_page_has_a_row_for_every_arm_of_the_sweep():
    page = (REPOSITORY / "docs" / "benchmarks.md").read_text("utf-8")
    section = page.split("\n## Methods\n")[1].split("\n## ")[0]
    rows = re.findall(r"(?m)^\| `(\w+)` \| \d", section)
    assert sorted(rows) == sorted(arms())
