"""PIVOT's cases; those of its replay and of the loss on replayed answers are not offered."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from papo.commands.method_cases import steps
from papo.functional import detrended, discounted_future
from papo.methods import PIVOT
from papo.types import IMAGE, ViewScores

NOT_OFFERED = {
    "calibration": "the loss on replayed answers needs a buffer of them",
    "replay": "needs a buffer with checkpoint state",
}


def outputs(case: Mapping[str, Any]) -> dict[str, Any]:
    """Computes what a case holds."""
    rows, config = steps.rows_of(case["inputs"]), case["config"]
    rows["rewards"] = rows["accuracy"]
    views = {
        IMAGE: ViewScores(logprobs=rows["old_log_probs"], entropy=rows["entropies"]),
        "masked": ViewScores(logprobs=rows["masked_log_probs"]),
    }
    batch = steps.batch_of(rows, views)
    settings = {
        "view": "masked", "least_support": None, "discount": config["discount"],
        "window": config["window"], "future_weight": config["future_coef"],
    }  # fmt: skip
    credit = PIVOT(**settings, beta=config["beta"])
    blocks, mask, logprobs = (
        steps.blocks_of(batch),
        rows["response_mask"],
        steps.leaf(rows["log_probs"]),
    )
    # With advantages of 1 that nothing protects the rest of A + |A| U is U.
    plain = replace(
        batch,
        advantages=torch.full_like(batch.advantages, 1e6),
        correct=torch.ones_like(batch.correct),
    )

    def utility(future_weight: float) -> torch.Tensor:
        part = PIVOT(**{**settings, "future_weight": future_weight}, beta=1.0)
        return steps.given(part, plain, blocks) / 1e6 - 1.0 * mask

    support, gate = utility(0.0), credit.gate(batch, blocks).where(mask, 0.0)
    future = discounted_future(support, mask, discount=config["discount"], window=config["window"])
    advantages = steps.given(credit, batch, blocks)
    loss = steps.token_mean(steps.surrogate(logprobs, rows, advantages, config), mask)
    return {
        "support": support,
        "future_support": future,
        "gate": gate,
        "detrended": detrended(gate * future, mask),
        "utility": utility(config["future_coef"]),
        "group_advantages": batch.advantages[:, 0],
        "advantages": advantages,
        "pg_loss": loss,
        "grad_log_probs": steps.gradient(loss, logprobs),
    }
