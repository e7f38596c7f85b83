"""CPPO's contrastive term: rows of their code on verl, and one packed sequence of that on AReaL."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from papo.functional import contrast_margin
from papo.methods import ViewContrast
from papo.objective import Blocks, Objective
from papo.types import IMAGE, RolloutBatch, ViewScores

LEAVES = ("log_probs", "preserve_log_probs", "remove_log_probs")


def outputs(case: Mapping[str, Any]) -> dict[str, Any]:
    config, is_packed = case["config"], case["kind"] == "areal"
    flat = {
        name: torch.tensor(value, dtype=torch.float64) for name, value in case["inputs"].items()
    }
    for name in LEAVES:
        flat[name].requires_grad_()
    term = ViewContrast(
        weight=1.0,
        average="sequence" if config["average"].startswith("seq") else "token",
        preserve="preserve",
        remove="remove",
        temperature=config["tau"],
        top_share=config["top_fraction"] if config["vision_mask"] else None,
        divergence="k1" if is_packed else "k3",
        gate="positive" if config["advantage_gate"] else "all",
        rounds_up=is_packed,
    )
    place = unpacked(flat["response_mask"]) if is_packed else None

    def rows(name: str) -> Tensor:
        values = flat[name] if place is None else flat[name][place.clamp_min(0)]
        return values.where(mask, 0.0)

    mask = flat["response_mask"].bool() if place is None else place >= 0
    has_tokens = mask.any(1)
    entropies = {"remove": "remove_entropies", IMAGE: "entropies"}
    batch = RolloutBatch(
        num_responses=1,
        response_mask=mask,
        old_logprobs=torch.zeros(mask.shape, dtype=torch.float64),
        advantages=rows("advantages"),
        correct=has_tokens,
        old_views={
            view: ViewScores(logprobs=torch.zeros_like(rows(name)), entropy=rows(name))
            for view, name in entropies.items()
        },
    )
    scores = {
        view: ViewScores(logprobs=rows(name))
        for view, name in zip((IMAGE, "preserve", "remove"), LEAVES, strict=True)
    }
    objective = Objective(terms={"contrast": term}, count_epsilon=0.0)
    blocks = Blocks(num_rollouts=len(mask), num_responses=1, rollouts_per_minibatch=len(mask))
    batch = objective.credit(batch, blocks, progress=0.0)
    loss = objective(batch, scores, minibatch=batch, progress=0.0)["contrast"]
    loss.backward()
    chosen = batch.term_weights["contrast"] > 0

    def packed(values: Tensor) -> Tensor:
        if place is None:
            return values
        found = torch.zeros(len(flat["response_mask"]), dtype=values.dtype)
        return found.index_put((place[mask],), values[mask])

    shape = flat["log_probs"].shape
    image, kept, lost = (flat[name].detach().reshape(-1, shape[-1]) for name in LEAVES)
    margin = contrast_margin(image, kept, lost, term.divergence)
    return {
        "vision_mask": packed(chosen).int(),
        "margin": margin.reshape(shape),
        "loss": loss.detach(),
        **{f"grad_{name}": flat[name].grad for name in LEAVES},
    }


def unpacked(response_mask: Tensor) -> Tensor:
    """Where in a packed sequence the tokens of each row are; -1 at padding."""
    rows: list[list[int]] = []
    for place, is_token in enumerate(response_mask.bool().tolist()):
        if is_token and (place == 0 or not response_mask[place - 1]):
            rows.append([])
        if is_token:
            rows[-1].append(place)
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [-1] * (longest - len(row)) for row in rows])
