"""TPAE's cases."""

from collections.abc import Mapping
from typing import Any

import torch

from papo.commands.method_cases.steps import batch_of, blocks_of, given, rows_of
from papo.functional import shrunk_gaussians
from papo.methods import TPAE
from papo.methods.tpae import LEAST_SAMPLES
from papo.types import IMAGE, ViewScores


def outputs(case: Mapping[str, Any]) -> dict[str, Any]:
    """Computes what a case holds; its groups are contiguous and equally large."""
    rows = rows_of(case["inputs"])
    rows |= {"rewards": rows["accuracy"], "old_log_probs": torch.zeros_like(rows["entropies"])}
    mask, groups = rows["response_mask"], rows["group_ids"]
    num_responses = int((groups == groups[0]).sum())
    views = {
        IMAGE: ViewScores(logprobs=rows["old_log_probs"], entropy=rows["entropies"]),
        "masked": ViewScores(logprobs=rows["old_log_probs"], kl_from_image=rows["sensitivity"]),
    }
    ids = rows["tokens"].long()
    batch = batch_of(rows, views, response_ids=ids, num_responses=num_responses)
    credit, blocks = TPAE(view="masked", boundary=case["config"]["tau"]), blocks_of(batch)
    reference = []
    for group in groups.unique():
        right = mask & (batch.correct & (groups == group))[:, None]
        points = torch.stack([rows[name][right] for name in ("sensitivity", "entropies")], dim=1)
        found = shrunk_gaussians(points, ids[right], int(ids.max()) + 1)
        for token, (count, mean, spread) in enumerate(zip(*found, strict=True)):
            if count >= LEAST_SAMPLES:
                reference.append(
                    {
                        "group": int(group),
                        "token": token,
                        "count": int(count),
                        "mean": mean,
                        "covariance": spread,
                    }
                )
    return {
        "reference": reference,
        "distance": credit.distances(batch, blocks),
        "group_advantages": batch.advantages[:, 0],
        "advantages": given(credit, batch, blocks),
    }
