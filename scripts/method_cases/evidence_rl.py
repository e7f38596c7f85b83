"""Evidence-RL: margin, gate and reward of one response."""

from collections.abc import Mapping
from typing import Any

import torch

from papo.methods import EvidenceRL


def outputs(case: Mapping[str, Any]) -> dict[str, Any]:
    config, inputs = case["config"], case["inputs"]
    drops = torch.tensor([inputs["evidence_drop"], *inputs["control_drops"]], dtype=torch.float64)
    evidence, *controls = drops.reshape(-1, 1)
    plain: dict[str, Any] = {
        "evidence": "evidence",
        "controls": [f"control_{place}" for place in range(len(controls))],
        "temperature": config["tau"],
        "weight": config["evidence_coef"],
        "wrong": -0.25,
        "epsilon": 1e-6,
    }
    routed, additive = (EvidenceRL(**plain, routed=is_routed) for is_routed in (True, False))
    margin = routed.margin(evidence, controls)
    # Without ground truth, which no problem of papo lacks, an answer earns nothing.
    verdict = {True: 1.0, False: routed.wrong, None: 0.0}[inputs["correct"]]
    earned = torch.full((1,), verdict, dtype=torch.float64)
    return {
        "margin": margin,
        "gate": routed.gate(margin),
        "correctness_reward": verdict,
        # Questions whether something is there are not routed; papo's data have none.
        "additive": additive.reward(earned, margin) if config["evidence_used"] else verdict,
        "routed": routed.reward(earned, margin) if config["evidence_used"] else verdict,
    }
