"""PGPO's cases."""

from collections.abc import Mapping
from typing import Any

from papo.commands.method_cases import steps
from papo.methods import PGPO
from papo.types import ViewScores


def outputs(case: Mapping[str, Any]) -> dict[str, Any]:
    """Computes what a case holds."""
    rows, config = steps.rows_of(case["inputs"]), case["config"]
    view = ViewScores(
        logprobs=rows.get("masked_log_probs", rows["old_log_probs"]),
        kl_from_image=rows["sensitivity"],
    )
    batch = steps.batch_of(rows, {"blind": view})
    settings = {
        "view": "blind",
        "threshold": config["threshold"],
        "boost": config["boost"],
        "estimator": "exact" if config["sensitivity"] == "given" else "k3",
        "threshold_is": "importance" if config["threshold_mode"] == "absolute" else "quantile",
        "floor": config["floor"],
    }
    credit = PGPO(**settings, keeps_mass=config["renormalise"])
    blocks, logprobs = steps.blocks_of(batch), steps.leaf(rows["log_probs"])
    unscaled = steps.weights_of(PGPO(**settings, keeps_mass=False), batch, blocks)
    advantages = steps.given(credit, batch, blocks)
    loss = steps.token_mean(
        steps.surrogate(logprobs, rows, advantages, config), rows["response_mask"]
    )
    return {
        "importance": credit.importance(batch),
        "weights": steps.weights_of(credit, batch, blocks),
        "degenerate_rows": (unscaled.amax(1) == 0).double(),
        "advantages": advantages,
        "loss": loss,
        "grad_log_probs": steps.gradient(loss, logprobs),
    }
