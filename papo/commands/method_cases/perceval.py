"""Perceval: spans of tokens of false claims, and what they cost."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from papo.commands.method_cases.steps import group_advantages, rows_of
from papo.methods import Perceval
from papo.objective import Blocks
from papo.training.flags import in_spans
from papo.types import RolloutBatch


def outputs(case: Mapping[str, Any]) -> dict[str, Any]:
    config, inputs = case["config"], case["inputs"]
    rows = rows_of({name: value for name, value in inputs.items() if name != "spans"})
    mask, rewards, groups = rows["response_mask"], rows["rewards"], rows["group_ids"]
    # A token is a place; -100 marks spans that are none.
    places = [(token, token + 1) for token in range(mask.shape[1])]
    spans = [[(a, b) for a, b in row if -100 not in (a, b)] for row in inputs["spans"]]
    flagged = torch.tensor([in_spans(places, row) for row in spans])
    advantages = group_advantages(rewards, groups)
    for group in groups.unique():
        members = groups == group
        if members.sum() == 1:  # nothing to compare with: their code keeps the reward
            advantages[members] = rewards[members] / (1 + 1e-6)
        elif not config["normalise_by_std"]:
            advantages[members] = rewards[members] - rewards[members].mean()
    batch = RolloutBatch(
        num_responses=1,
        response_mask=mask,
        old_logprobs=torch.zeros(mask.shape, dtype=torch.float64),
        advantages=advantages[:, None] * mask,
        correct=rewards > 0.5,
    )
    blocks = Blocks(num_rollouts=len(mask), num_responses=1, rollouts_per_minibatch=len(mask))
    credit = Perceval(penalty=config["alpha"])
    return {
        "penalty_mask": flagged.int(),
        "advantages": credit(replace(batch, flagged=flagged), blocks, progress=0.0),
    }
