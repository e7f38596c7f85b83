"""PEPO's cases; in its code the weights carry gradient, in the method here they are constant."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from papo.commands.method_cases.steps import gradient, leaf, rows_of
from papo.functional import clipped_surrogate, kl_k3, mean_cosine, sequence_mean, token_mean
from papo.methods import PEPO

_OTHER_SCORE = "a score that the paper does not use"
NOT_OFFERED = {"euclidean": _OTHER_SCORE, "dot": _OTHER_SCORE, "manhattan": _OTHER_SCORE}


def outputs(case: Mapping[str, Any]) -> dict[str, Any]:
    """Of hidden states the scores; of scores the weights, the loss and its gradients."""
    if case["kind"] == "vision_scores":
        return {"vision_scores": scores_of(case["inputs"], case["config"]["response_length"])}
    config, rows = case["config"], rows_of(case["inputs"])
    mask = rows["response_mask"]
    looks, entropies, logprobs = (
        leaf(rows[name]) for name in ("vision_scores", "entropies", "log_probs")
    )
    seen = entropies if config["entropy_in_graph"] else entropies.detach()
    credit = PEPO(gate=config["gate_alpha"], temperature=config["gate_temperature"])
    weights = credit.weights(looks, seen, mask)
    progress = config["progress"] if config["vision_weights"] else 0.0
    # The surrogate is as large as the advantage, so the gradient of weights is that of advantages.
    values = clipped_surrogate(
        logprobs,
        rows.get("old_log_probs", logprobs.detach()),
        rows["advantages"][:, None].expand(mask.shape),
        clip_low=config["clip_low"],
        clip_high=config["clip_high"],
        dual_clip=None,
        log_ratio_max=None,
    )
    values = values * (1 - progress + progress * weights)
    if config["top_entropy_quantile"] < 1:
        least = entropies.detach()[mask].quantile(1 - config["top_entropy_quantile"])
        values = values * (entropies >= least)
    if config["kl_coef"]:
        values = values + config["kl_coef"] * kl_k3(
            logprobs, rows["ref_log_probs"], log_ratio_max=None
        )
    loss = averaged(values, mask, config["average"])
    return {
        "weights": weights if config["vision_weights"] else None,
        "loss": loss,
        "grad_log_probs": gradient(loss, logprobs),
        "grad_vision_scores": gradient(loss, looks),
        "grad_entropies": gradient(loss, entropies),
    }


def averaged(values: Tensor, mask: Tensor, average: str) -> Tensor:
    """The loss of a micro-batch."""
    if average == "sequence_mean":
        return sequence_mean(values, mask, num_rollouts=len(mask), count_epsilon=0.0)
    if average == "token_mean":
        return token_mean(values, mask, num_tokens=int(mask.sum()), count_epsilon=0.0)
    return values.where(mask, 0.0).sum() / (len(mask) * 12)


def scores_of(inputs: Mapping[str, Any], length: int) -> Tensor:
    """The mean over layers; a row without image tokens is compared with all positions but the first."""
    states = torch.tensor(inputs["hidden_states"], dtype=torch.float64)
    is_image = torch.tensor(inputs["image_token"]).bool()
    is_image[~is_image.any(1), 1:] = True
    rows = torch.arange(is_image.shape[0])
    found = [
        mean_cosine(
            layer[:, -length:].flatten(0, 1),
            rows.repeat_interleave(length),
            layer[is_image],
            is_image.nonzero()[:, 0],
            num_owners=len(rows),
        )
        for layer in states
    ]
    return torch.stack(found).mean(0).view(-1, length)
