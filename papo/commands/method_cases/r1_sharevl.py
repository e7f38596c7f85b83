"""R1-ShareVL: every response as a row under each variant, the extra comparison where that is its own."""

from collections.abc import Mapping
from typing import Any

import torch

from papo.commands.method_cases.steps import rows_of
from papo.methods import ShareGRPO
from papo.objective import Blocks
from papo.types import RolloutBatch


def outputs(case: Mapping[str, Any]) -> dict[str, Any]:
    """Their rows of a sample are q variants of the prompt times q n responses; papo has the responses once."""
    rows, variants = rows_of(case["inputs"]), case["config"]["question_num"]
    mask, size = rows["response_mask"], variants * case["config"]["n"]
    advantages = torch.zeros(mask.shape, dtype=torch.float64)
    for start in range(0, len(mask), size):
        own = slice(start, start + size)
        batch = RolloutBatch(
            num_responses=size,
            response_mask=torch.ones(size, 1, dtype=torch.bool),
            old_logprobs=torch.zeros(size, 1, dtype=torch.float64),
            advantages=torch.zeros(size, 1, dtype=torch.float64),
            correct=rows["rewards"][own] > 0.5,
            rewards=rows["rewards"][own],
        )
        blocks = Blocks(num_rollouts=size, num_responses=size, rollouts_per_minibatch=size)
        with_own, without = (
            ShareGRPO(variants=variants, epsilon=1e-6, within=within, copies=variants)(
                batch, blocks, progress=0.0
            )
            for within in (1.0, 0.0)
        )
        is_own = rows["diagonal"][own, None].bool()
        advantages[own] = torch.where(is_own, with_own, without)
    return {"advantages": advantages * mask}
