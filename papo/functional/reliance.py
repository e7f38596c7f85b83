"""How much an answer rests on what a view hides: contrasts of two views (CPPO) and margins over controls (Evidence-RL)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from papo.functional.credit import k3_dependence

Values = Float[Tensor, "rollout token"]
Mask = Bool[Tensor, "rollout token"]
Responses = Float[Tensor, " rollout"]


def contrast_margin(image: Values, preserved: Values, removed: Values, divergence: str) -> Values:
    """How much farther from the image's log-probs a token's are given one view than given another (CPPO).

    Args:
        image: log-probs of the tokens.
        preserved: given the view that should change little.
        removed: given the other.
        divergence: "k3", in [0, 10]; or "k1", log p(image) - log p(view) in [-10, 10], in which the image cancels.
    """
    if divergence == "k3":
        return k3_dependence(preserved, image) - k3_dependence(removed, image)
    return (image - preserved).clamp(-10.0, 10.0) - (image - removed).clamp(-10.0, 10.0)


def largest_rises(
    before: Values, after: Values, mask: Mask, share: float, *, rounds_up: bool
) -> Mask:
    """Of a response's tokens whose entropy rises, the share with the largest rise relative to what it becomes (CPPO).

    Args:
        before: entropies, given the picture.
        after: given less of it.
        mask: the tokens that are there.
        share: above 0 to 1; of equal rises the first.
        rounds_up: whether a part of a token is one more, or none; one is kept at least.
    """
    rising = mask & (after > before)
    rise = ((after - before) / (after + 1e-8)).masked_fill(~rising, -torch.inf)
    place = rise.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    # Products like 0.3 * 10 are rounded: 3.0000000000000004 are 3 tokens.
    exact = share * rising.sum(1, keepdim=True).double()
    count = (exact - 1e-9).ceil() if rounds_up else (exact + 1e-9).floor()
    return rising & (place < count.clamp_min(1))


def evidence_margin(
    evidence: Responses, controls: Float[Tensor, "control rollout"], *, relative: bool
) -> Responses:
    """What hiding the evidence costs beyond hiding as much elsewhere: tanh((e - mean c) / (std c + 1e-6)), the
    population std; without controls tanh(e). Not `relative`: the difference itself (Evidence-RL).

    Args:
        evidence: drop of the mean log-prob of each response.
        controls: the same of each control; there may be none.
        relative: as above.
    """
    if not len(controls):
        return evidence.tanh() if relative else evidence
    difference = evidence - controls.mean(0)
    spread = controls.std(0, correction=0) + 1e-6
    return (difference / spread).tanh() if relative else difference


def evidence_gate(margin: Responses, temperature: float) -> Responses:
    """(1 + tanh(margin / temperature)) / 2; at temperature 0 a step above 0 (Evidence-RL)."""
    if temperature == 0:
        return (margin > 0).to(margin)
    return (1 + (margin / temperature).tanh()) / 2
