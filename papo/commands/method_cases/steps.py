"""What the cases of most methods share: rows of responses, their batch, and the surrogate with its gradient."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from papo.functional import clipped_surrogate, kl_k3
from papo.objective import Blocks, Credit
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


def group_advantages(
    rewards: Tensor, group_ids: Tensor, epsilon: float = 1e-6, *, alone_keeps_reward: bool = False
) -> Tensor:
    """As papo.functional.group_advantages, of groups of any sizes in any order.

    Args:
        rewards: of each row.
        group_ids: rows of one prompt have the same.
        epsilon: added to the standard deviation.
        alone_keeps_reward: a group of one has its reward for an advantage (several codes); otherwise 0.
    """
    advantages = torch.zeros_like(rewards)
    for group in group_ids.unique():
        members = group_ids == group
        values = rewards[members]
        if len(values) > 1:
            values = (values - values.mean()) / (values.std() + epsilon)
        else:
            values = values / (1 + epsilon) if alone_keeps_reward else 0 * values
        advantages[members] = values
    return advantages


def batch_of(
    rows: Mapping[str, Tensor], views: Mapping[str, ViewScores], **more: Any
) -> RolloutBatch:
    """The rollout as a credit sees it, every row its own group; rows without rewards have an advantage of 1."""
    mask = rows["response_mask"]
    if "rewards" not in rows:
        rows = {**rows, "rewards": torch.ones(len(mask), dtype=torch.float64)}
        advantages = rows["rewards"]
    else:
        advantages = group_advantages(rows["rewards"], rows["group_ids"])
    return RolloutBatch(
        **{"num_responses": 1, **more},
        response_mask=mask,
        old_logprobs=rows["old_log_probs"],
        advantages=advantages[:, None] * mask,
        correct=rows["rewards"] > 0.5,
        rewards=rows["rewards"],
        old_views=views,
    )


def blocks_of(batch: RolloutBatch, minibatch: int | None = None) -> Blocks:
    """The blocks of a whole case. What a code takes over a micro-batch, its rows here are a minibatch's."""
    return Blocks(
        num_rollouts=batch.num_rollouts,
        num_responses=batch.num_responses,
        rollouts_per_minibatch=minibatch or batch.num_rollouts,
    )


def given(credit: Credit, batch: RolloutBatch, blocks: Blocks) -> Tensor:
    """The advantages that a credit gives, 0 at padding."""
    return credit(batch, blocks, progress=0.0).where(batch.response_mask, 0.0)


def weights_of(credit: Credit, batch: RolloutBatch, blocks: Blocks) -> Tensor:
    """What a credit that multiplies multiplies advantages by: what it gives where they are 1."""
    ones = torch.ones_like(batch.advantages)
    return given(credit, replace(batch, advantages=ones), blocks)


def micro_batches(case: Mapping[str, Any]) -> tuple[slice, ...]:
    """The rows of each micro-batch of a case."""
    size, num_rows = case["config"]["micro_batch"], len(case["inputs"]["response_mask"])
    return tuple(slice(start, start + size) for start in range(0, num_rows, size))


def leaf(values: Tensor) -> Tensor:
    """The values, as what a loss is differentiated by."""
    return values.clone().requires_grad_()


def gradient(loss: Tensor, values: Tensor) -> Tensor:
    """The gradient of a loss; 0 where nothing of it reaches the values."""
    (found,) = torch.autograd.grad(loss, values, allow_unused=True, retain_graph=True)
    return torch.zeros_like(values) if found is None else found


def surrogate(
    logprobs: Tensor, rows: Mapping[str, Tensor], advantages: Tensor, config: Mapping[str, Any]
) -> Tensor:
    """The clipped surrogate of every token, with the names that the forks of EasyR1 give its settings."""
    return clipped_surrogate(
        logprobs,
        rows["old_log_probs"],
        advantages,
        clip_low=config["clip_ratio_low"] if "clip_ratio_low" in config else config["clip_low"],
        clip_high=config["clip_ratio_high"] if "clip_ratio_high" in config else config["clip_high"],
        dual_clip=config.get("clip_ratio_dual"),
        log_ratio_max=20.0,
    )


def token_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over the tokens of a micro-batch, as these codes take it."""
    return values.where(mask, 0.0).sum() / (mask.sum() + EPSILON)


def micro_losses(
    logprobs: Tensor, rows: Mapping[str, Tensor], advantages: Tensor, case: Mapping[str, Any]
) -> tuple[list[Tensor], list[Tensor]]:
    """The surrogates of the micro-batches, and with entropy penalty and reference KL their parts of the loss."""
    config, policy, total = case["config"], [], []
    penalty = config["entropy_penalty_coef"] if config.get("use_entropy_penalty", True) else 0.0
    for part in micro_batches(case):
        own = {name: values[part] for name, values in rows.items()}
        mask = own["response_mask"]

        def mean(values: Tensor, mask: Tensor = mask) -> Tensor:
            if config["loss_avg_mode"] == "seq":
                return (values.where(mask, 0.0).sum(1) / (mask.sum(1) + EPSILON)).mean()
            return token_mean(values, mask)

        policy.append(mean(surrogate(logprobs[part], own, advantages[part], config)))
        loss = policy[-1] - penalty * token_mean(logprobs[part], mask)
        if config.get("use_kl_loss"):
            kl = kl_k3(logprobs[part], own["ref_log_probs"], log_ratio_max=20.0).clamp(-10, 10)
            loss = loss + config["kl_coef"] * mean(kl)
        total.append(loss * mask.sum() / rows["response_mask"].sum())
    return policy, total
