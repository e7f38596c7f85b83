"""ToR's cases."""

from collections.abc import Mapping
from typing import Any

from torch import float64, tensor

from papo.commands.method_cases import steps
from papo.functional import distributions, kl_k3, largest_share
from papo.methods import ToR
from papo.types import IMAGE, ViewScores


def outputs(case: Mapping[str, Any]) -> dict[str, Any]:
    """Computes what a case holds."""
    config = case["config"]
    if case["kind"] == "entropy":
        logits = tensor(case["inputs"]["logits"], dtype=float64)
        return {
            "entropy": distributions.nucleus_entropy(logits.log_softmax(-1), mass=config["top_p"])
        }
    rows = steps.rows_of(case["inputs"])
    views = {
        IMAGE: ViewScores(logprobs=rows["old_log_probs"], nucleus_entropy=rows["entropies"]),
        "removed": ViewScores(logprobs=rows["blind_log_probs"]),
    }
    batch = steps.batch_of(rows, views)
    shares = {
        name: config[name.replace("share", "fraction")]
        for name in ("reasoning_share", "perception_share")
    }

    def credit(reasoning: float, perception: float) -> Any:
        return ToR(
            view="removed", **shares, reasoning_weight=reasoning, perception_weight=perception
        )

    full = credit(config["reasoning_weight"], config["perception_weight"])
    blocks, mask, logprobs = (
        steps.blocks_of(batch),
        rows["response_mask"],
        steps.leaf(rows["log_probs"]),
    )
    change = (rows["old_log_probs"] - rows["blind_log_probs"]).abs()
    advantages = steps.given(full, batch, blocks)
    values = steps.surrogate(logprobs, rows, advantages, config)
    if config["kl_coef"]:
        kl = kl_k3(logprobs, rows["ref_log_probs"], log_ratio_max=20.0).clamp(-10, 10)
        values = values + config["kl_coef"] * kl
    loss = steps.token_mean(values, mask)
    return {
        "reasoning_mask": steps.weights_of(credit(1.0, 0.0), batch, blocks),
        "perception_mask": largest_share(
            change, mask, shares["perception_share"], rows=blocks.rows("rollout")
        ),
        "weights": steps.weights_of(full, batch, blocks),
        "advantages": batch.advantages,
        "loss": loss,
        "grad_log_probs": steps.gradient(loss, logprobs),
    }
