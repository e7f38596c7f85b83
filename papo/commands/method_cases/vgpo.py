"""VGPO's cases; its code takes the extremes of scores over a micro-batch, padding included."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from papo.commands.method_cases import steps
from papo.functional import cosine_with_mean, min_max
from papo.methods import VGPO
from papo.objective import Blocks
from papo.types import IMAGE, RolloutBatch, ViewScores

_NO_TOKEN = {"token_least": 1.0, "token_most": 1.0}
_NO_RESPONSE = {"response_least": 1.0, "response_most": 1.0}
_SCHEDULES = {"step-function": "step"}


def outputs(case: Mapping[str, Any]) -> dict[str, Any]:
    """Each micro-batch by itself, a rollout of its own; what is left over when it is cut into groups has the factor 1."""
    config, rows = case["config"], steps.rows_of(case["inputs"])
    mask, cosines = rows["response_mask"], cosines_of(case["inputs"])
    advantages = steps.group_advantages(rows["rewards"], rows["group_ids"])[:, None] * mask
    if len(mask) == 1:  # nothing to compare it with: the case says which advantage it was given
        advantages = torch.tensor(case["outputs"]["advantages"], dtype=torch.float64)
    found: dict[str, list[Tensor]] = {"scores": [], "tokens": [], "responses": [], "shaped": []}
    for part in steps.micro_batches(case):
        few, values = mask[part], cosines[part]
        everything = torch.ones_like(few)
        found["scores"].append(min_max(values, everything, rows=[slice(0, len(few))], epsilon=1e-8))
        padding = values[~few]
        # Scores stay the same where all cosines are moved: that of padding to 0.
        moved = values - padding.mean() if len(padding) else values
        settings = {**settings_of(config), "with_zero": bool(len(padding))}
        batch = micro_batch(rows, part, moved, advantages)
        size = min(config["rollout_n"], len(few))
        blocks = Blocks(num_rollouts=len(few), num_responses=size, rollouts_per_minibatch=len(few))
        tokens = steps.weights_of(VGPO(**{**settings, **_NO_RESPONSE}), batch, blocks)
        responses = steps.weights_of(VGPO(**{**settings, **_NO_TOKEN}), batch, blocks)[:, 0]
        shaped = steps.given(VGPO(**settings), batch, blocks)
        whole = len(few) - len(few) % size
        responses[whole:] = 1.0
        shaped[whole:] = steps.given(VGPO(**{**settings, **_NO_RESPONSE}), batch, blocks)[whole:]
        for name, each in (("tokens", tokens), ("responses", responses), ("shaped", shaped)):
            found[name].append(each)
    whole_of = {name: torch.cat(parts) for name, parts in found.items()}
    logprobs = steps.leaf(rows["log_probs"])
    _, losses = steps.micro_losses(logprobs, rows, whole_of["shaped"], case)
    return {
        "visual_scores": whole_of["scores"],
        "token_factors": whole_of["tokens"],
        "response_factors": whole_of["responses"],
        "advantages": advantages,
        "shaped_advantages": whole_of["shaped"],
        "micro_losses": losses,
        "loss": (loss := torch.stack(losses).sum()),
        "grad_log_probs": steps.gradient(loss, logprobs),
    }


def micro_batch(
    rows: Mapping[str, Tensor], part: slice, cosines: Tensor, advantages: Tensor
) -> RolloutBatch:
    """The rows of a micro-batch as a rollout."""
    own = {
        name: values[part]
        for name, values in rows.items()
        if values.shape[:1] == advantages.shape[:1]
    }
    logprobs, there = own["old_log_probs"], own["response_mask"]
    seen = ViewScores(logprobs=logprobs, image_cosine=cosines.where(there, 0.0))
    return replace(steps.batch_of(own, {IMAGE: seen}), advantages=advantages[part])


def cosines_of(inputs: Mapping[str, Any]) -> Tensor:
    """Of every response position, padding included, with the image tokens of its row."""
    states = torch.tensor(inputs["hidden_states"], dtype=torch.float64)
    is_image = torch.tensor(inputs["image_token_mask"]).bool()
    own = states[:, inputs["prompt_length"] :]
    owners = torch.arange(len(own)).repeat_interleave(own.shape[1])
    image_owners = is_image.nonzero()[:, 0]
    return cosine_with_mean(
        own.flatten(0, 1), owners, states[is_image], image_owners, num_owners=len(own)
    ).view(own.shape[:2])


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The method's settings; compensation belongs to the tokens' factor, and a factor from 1 to 1 is off."""
    tokens = config["use_intra_trajectory_reweighting"]
    gated, schedule = config["use_gated_visual_compensation"], config["visual_compensation_type"]
    compensates = tokens and config["use_visual_compensation"]
    return {
        "compensation": config["visual_compensation_strength"] if compensates else 0.0,
        "schedule": _SCHEDULES.get(schedule, schedule),
        "gate_start": config["gated_visual_compensation_start_ratio"] if gated else 0.0,
        "gate_share": config["visual_attention_threshold"] if gated else 1.0,
        "score_scope": "rollout",
        **({"token_least": 0.1, "token_most": 2.0} if tokens else _NO_TOKEN),
        **(
            {"response_least": 0.9, "response_most": 2.0}
            if config["use_inter_trajectory_reweighting"]
            else _NO_RESPONSE
        ),
    }
