"""Evidence-RL: margin, gate and reward of one response."""

from collections.abc import Mapping
from typing import Any

import torch

from papo.functional import evidence_gate, evidence_margin

# A kind of case that papo does not offer, and why.
NOT_OFFERED = {"soft_shaping": "it adds the margin between yes and no at the first answer token"}


def outputs(case: Mapping[str, Any]) -> dict[str, Any]:
    config, inputs = case["config"], case["inputs"]
    evidence = torch.tensor([inputs["evidence_drop"]], dtype=torch.float64)
    controls = torch.tensor(inputs["control_drops"], dtype=torch.float64)[:, None]
    margin = evidence_margin(evidence, controls.reshape(-1, 1), relative=True)
    gate = evidence_gate(margin, config["tau"])
    # Without ground truth an answer earns nothing.
    verdict = {True: 1.0, False: -0.25, None: 0.0}[inputs["correct"]]
    beside = config["evidence_coef"] * margin
    # Questions whether something is there are not routed; papo's data have none.
    used = config["evidence_used"]
    return {
        "margin": margin,
        "gate": gate,
        "correctness_reward": verdict,
        "additive": verdict + beside if used else verdict,
        "routed": verdict * gate + beside if used else verdict,
    }
