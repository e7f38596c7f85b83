"""VEPO's cases."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from papo.commands.method_cases import steps
from papo.functional import distributions
from papo.methods import VEPO
from papo.types import IMAGE, ViewScores


def outputs(case: Mapping[str, Any]) -> dict[str, Any]:
    """Computes what a case holds; a code's micro-batch is a minibatch here."""
    rows, config = steps.rows_of(case["inputs"]), case["config"]
    mask, parts = rows["response_mask"], steps.micro_batches(case)

    def on_tokens(measure: Any, *logits: str) -> torch.Tensor:
        return (
            measure(*(rows[name].log_softmax(-1).flatten(0, 1) for name in logits)).reshape(
                mask.shape
            )
            * mask
        )

    noised = ViewScores(
        logprobs=rows["old_log_probs"],
        entropy=on_tokens(distributions.entropy, "masked_logits"),
        jsd_from_image=on_tokens(
            distributions.jensen_shannon_divergence, "logits", "masked_logits"
        ),
        kl_from_image=on_tokens(distributions.kl_divergence, "logits", "masked_logits"),
    )
    image = ViewScores(
        logprobs=rows["old_log_probs"], entropy=on_tokens(distributions.entropy, "logits")
    )
    batch = steps.batch_of(rows, {"noised": noised, IMAGE: image})
    advantages = steps.group_advantages(rows["rewards"], rows["group_ids"], alone_keeps_reward=True)
    batch = replace(batch, advantages=advantages[:, None] * mask)
    score, divergence = (
        ("D", "kl_from_image")
        if config["score_type"] == "H"
        else (config["score_type"], "jsd_from_image")
    )
    settings = {
        "view": "noised", "average": "token", "score": score, "divergence": divergence, "alpha": config["alpha"],
        "top_share": config["top_p"], "lowest": config["bottom"],
    }  # fmt: skip
    emphasis = config["mask_lambda"] if config["mode"] == "weight" else None
    credit, blocks = (
        VEPO(**settings, emphasis=emphasis),
        steps.blocks_of(batch, config["micro_batch"]),
    )
    advantages, logprobs = steps.given(credit, batch, blocks), steps.leaf(rows["log_probs"])
    clip = {"clip_low": config["clip_ratio"], "clip_high": config["clip_ratio"]}
    policy, total = [], []
    for part in parts:
        own = {name: values[part] for name, values in rows.items()}
        policy.append(
            steps.token_mean(
                steps.surrogate(logprobs[part], own, advantages[part], clip), mask[part]
            )
        )
        bonus = steps.token_mean(own["policy_entropies_for_bonus"], mask[part])
        total.append((policy[-1] - config["entropy_coeff"] * bonus) / len(parts))
    loss = torch.stack(total).sum()
    return {
        "jsd": noised.jsd_from_image,
        "kl": noised.kl_from_image,
        "entropy": image.entropy,
        "masked_entropy": noised.entropy,
        "scores": credit.scores(batch) * mask,
        "token_mask": steps.weights_of(VEPO(**settings, emphasis=1.0), batch, blocks) - 1 * mask,
        "tie_at_boundary": False,
        "advantages": batch.advantages,
        "micro_pg_losses": policy,
        "micro_losses": total,
        "loss": loss,
        "grad_log_probs": steps.gradient(loss, logprobs),
    }
