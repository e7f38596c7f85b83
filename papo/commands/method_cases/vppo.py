"""VPPO's cases."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from papo.commands.method_cases import steps
from papo.functional import (
    k3_dependence,
    largest_factor,
    response_means,
)
from papo.methods import VPPO
from papo.types import IMAGE, ViewScores


def outputs(case: Mapping[str, Any]) -> dict[str, Any]:
    """Computes what a case holds; a code's micro-batch is a minibatch here, and its minibatch the rollout."""
    rows, config = steps.rows_of(case["inputs"]), case["config"]
    mask, parts = rows["response_mask"], steps.micro_batches(case)
    there = mask.any(1)  # a rollout has no response without tokens
    advantages = steps.group_advantages(rows["rewards"], rows["group_ids"])[:, None] * mask
    kept = {name: values[there] for name, values in rows.items()}
    views = {"masked": ViewScores(logprobs=kept["masked_log_probs"])}
    if "entropies" in kept:
        views[IMAGE] = ViewScores(logprobs=kept["old_log_probs"], entropy=kept["entropies"])
    batch = replace(steps.batch_of(kept, views), advantages=advantages[there])
    blocks = steps.blocks_of(batch, config["micro_batch"] if bool(there.all()) else None)

    sees, thinks = config["use_vppo_on_perception"], config.get("use_vppo_on_entropy", False)
    shares: dict[str, Any] = {
        "top_share": config["top_p_perception_tokens"] if sees else None,
        "entropy_share": config["top_p_entropy_tokens"] if thinks else None,
    }
    least = config["advantage_scaling_min"] if config["use_advantage_shaping"] else 1.0
    scopes: dict[str, Any] = {"view": "masked", "scope": "rollout", "mean_scope": "minibatch"}

    def everywhere(values: Tensor) -> Tensor:
        return torch.zeros_like(advantages).masked_scatter(there[:, None].expand_as(mask), values)

    factors = everywhere(
        steps.weights_of(VPPO(**scopes, top_share=1.0, least=least), batch, blocks)
    )
    credited = everywhere(steps.given(VPPO(**scopes, **shares, least=least), batch, blocks))
    dependence = everywhere(k3_dependence(kept["masked_log_probs"], kept["old_log_probs"]))
    means = response_means(dependence, mask)[there]
    low, high = means.min(), means.max()
    logprobs = steps.leaf(rows["log_probs"])
    policy, total = steps.micro_losses(logprobs, rows, credited, case)
    shapes = config["use_advantage_shaping"]
    shares_of = (response_means(dependence, mask) - low) / (high - low)
    return {
        "advantages": advantages,
        "shaped_advantages": advantages * factors.where(mask, 1.0),
        "token_mask": everywhere(
            steps.weights_of(VPPO(**scopes, **shares, least=1.0), batch, blocks)
        )
        if sees or thinks
        else None,
        "dependency": dependence,
        "global_min": low if shapes else None,
        "global_max": high if shapes else None,
        "scaling_max_per_micro": [
            largest_factor(shares_of[part][there[part]], least)
            for part in (parts if shapes and high - low > 1e-6 else ())
        ],
        "micro_pg_losses": policy,
        "micro_losses": total,
        "loss": (loss := torch.stack(total).sum()),
        "grad_log_probs": steps.gradient(loss, logprobs),
    }
