"""What the cases of most methods share: rows of responses, their batch, and the surrogate with its gradient."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from papo.functional import clipped_surrogate
from papo.types import RolloutBatch, ViewScores

EPSILON = 1e-8  # added to token counts by the authors of PAPO and of its forks


def rows_of(inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """The inputs as float64 tensors; the mask as booleans, and 0 wherever it is not set."""
    mask = torch.tensor(inputs["response_mask"]).bool()
    rows: dict[str, Tensor] = {}
    for name, value in inputs.items():
        if not isinstance(value, list):
            continue
        tensor = torch.tensor(value, dtype=torch.float64)
        rows[name] = tensor.where(mask, 0.0) if tensor.shape == mask.shape else tensor
    rows["response_mask"] = mask
    return rows


def group_advantages(rewards: Tensor, group_ids: Tensor, epsilon: float = 1e-6) -> Tensor:
    """As papo.functional.group_advantages, of groups of any sizes in any order."""
    advantages = torch.zeros_like(rewards)
    for group in group_ids.unique():
        members = group_ids == group
        values = rewards[members]
        spread = values.std() if len(values) > 1 else torch.ones(())
        advantages[members] = (values - values.mean()) / (spread + epsilon)
    return advantages


def batch_of(
    rows: Mapping[str, Tensor], views: Mapping[str, ViewScores], **more: Any
) -> RolloutBatch:
    """The rollout as a credit sees it, every row its own group."""
    mask = rows["response_mask"]
    advantages = group_advantages(rows["rewards"], rows["group_ids"])
    return RolloutBatch(
        num_responses=1,
        response_mask=mask,
        old_logprobs=rows["old_log_probs"],
        advantages=advantages[:, None] * mask,
        correct=rows["rewards"] > 0.5,
        rewards=rows["rewards"],
        old_views=views,
        **more,
    )


def surrogate(
    logprobs: Tensor, rows: Mapping[str, Tensor], advantages: Tensor, config: Mapping[str, Any]
) -> Tensor:
    """The clipped surrogate of every token, with the names that the forks of EasyR1 give its settings."""
    return clipped_surrogate(
        logprobs,
        rows["old_log_probs"],
        advantages,
        clip_low=config["clip_ratio_low"],
        clip_high=config["clip_ratio_high"],
        dual_clip=config["clip_ratio_dual"],
        log_ratio_max=20.0,
    )


def token_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over the tokens of a micro-batch, as these codes take it."""
    return values.where(mask, 0.0).sum() / (mask.sum() + EPSILON)
