"""CGPO's cases."""

from collections.abc import Mapping
from typing import Any

from papo.commands.method_cases.steps import batch_of, blocks_of, rows_of, weights_of
from papo.functional import k3_dependence, response_means
from papo.methods import CGPO
from papo.types import IMAGE, ViewScores


def outputs(case: Mapping[str, Any]) -> dict[str, Any]:
    """Computes what a case holds; a code's micro-batch is a minibatch here. A share of 1 selects nothing there."""
    rows, config = rows_of(case["inputs"]), case["config"]
    mask = rows["response_mask"]
    views = {
        IMAGE: ViewScores(logprobs=rows["old_log_probs"], entropy=rows["entropies"]),
        "boxed": ViewScores(logprobs=rows["masked_log_probs"]),
    }
    batch = batch_of(rows, views)
    blocks = blocks_of(batch, config["micro_batch"])
    by_response = config["threshold_over"] == "response"
    settings: dict[str, Any] = {
        "view": "boxed",
        "selection_scope": "response" if by_response else "minibatch",
        "regions": (lambda _: rows["region_tokens"].bool()) if "region_tokens" in rows else None,
    }
    shares: dict[str, Any] = {
        f"{kind}_share": None if config[f"{kind}_fraction"] == 1.0 else config[f"{kind}_fraction"]
        for kind in ("entropy", "perception")
    }
    only = CGPO(**settings, **{**shares, "entropy_share": None}, scale=0.0)
    sees = weights_of(only, batch, blocks)
    sees = sees if shares["perception_share"] else 0 * sees
    chosen = weights_of(CGPO(**settings, **shares, scale=0.0), batch, blocks)
    weights = weights_of(CGPO(**settings, **shares, scale=config["scale"]), batch, blocks)
    everything = CGPO(**settings, entropy_share=None, perception_share=1.0, scale=config["scale"])
    dependence = k3_dependence(rows["masked_log_probs"], rows["old_log_probs"]) * mask
    means = response_means(dependence, mask)
    median, is_alone = means.median(), len(means) == 1
    return {
        "sensitivity": dependence,
        "response_sensitivity": means,
        "median": None if is_alone else median,
        "mad": None if is_alone else (means - median).abs().median(),
        "response_factors": weights_of(everything, batch, blocks)[:, 0],
        "perception_mask": sees,
        "selected_tokens": chosen,
        "token_factors": weights.where(sees.bool(), 1.0) * mask,
        "pg_token_weight": weights,
    }
