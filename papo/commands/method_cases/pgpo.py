"""PGPO's cases."""

from collections.abc import Mapping
from typing import Any

from papo.commands.method_cases.rows import (
    batch_of,
    blocks_of,
    given,
    gradient,
    leaf,
    rows_of,
    surrogate,
    token_mean,
    weights_of,
)
from papo.methods import PGPO
from papo.types import ViewScores


def outputs(case: Mapping[str, Any]) -> dict[str, Any]:
    """Computes what a case holds."""
    rows, config = rows_of(case["inputs"]), case["config"]
    view = ViewScores(
        logprobs=rows.get("masked_log_probs", rows["old_log_probs"]),
        kl_from_image=rows["sensitivity"],
    )
    batch = batch_of(rows, {"blind": view})
    settings = {
        "view": "blind",
        "threshold": config["threshold"],
        "boost": config["boost"],
        "estimator": "exact" if config["sensitivity"] == "given" else "k3",
        "threshold_is": "importance" if config["threshold_mode"] == "absolute" else "quantile",
        "floor": config["floor"],
    }
    credit = PGPO(**settings, keeps_mass=config["renormalise"])
    blocks, logprobs = blocks_of(batch), leaf(rows["log_probs"])
    unscaled = weights_of(PGPO(**settings, keeps_mass=False), batch, blocks)
    advantages = given(credit, batch, blocks)
    loss = token_mean(surrogate(logprobs, rows, advantages, config), rows["response_mask"])
    return {
        "importance": credit.importance(batch),
        "weights": weights_of(credit, batch, blocks),
        "degenerate_rows": (unscaled.amax(1) == 0).double(),
        "advantages": advantages,
        "loss": loss,
        "grad_log_probs": gradient(loss, logprobs),
    }
