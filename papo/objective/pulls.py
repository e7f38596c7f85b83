"""What every weighted term of an objective asks of the policy, token by token.

The pull of a term on a score s of a token is d(weight * term) / ds, as the update would have it were these rollouts
its minibatch. It is known before any weight of the policy is asked, and says what a term cannot do: a term without a
pull has no gradient, whatever its value is.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from papo.objective.objective import Objective
from papo.objective.term import TokenChoice, TokenValues
from papo.types import RolloutBatch, TokenScores

TOP_SHARE = 0.01
"""Of the tokens, those with the largest pulls: what they have of all pulls is reported."""

_CANCELLED = 1e-6
"""A pull that is so small beside the term's others is rounding."""

ScoreName = tuple[str, str]
"""A view and a quantity of ViewScores."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TermPull:
    """A term with a weight, at the tokens of some rollouts.

    Attributes:
        name: of the term.
        values: of the term, unweighted.
        of: its pull on every score that it is computed from and that carries gradient; empty for a constant.
        is_in_loss: whether the total depends on it with its weight.
    """

    name: str
    values: TokenValues
    of: Mapping[ScoreName, TokenValues]
    is_in_loss: bool

    @property
    def sizes(self) -> TokenValues:
        """Sum of the absolute pulls on all scores of a token."""
        return sum((pull.abs() for pull in self.of.values()), torch.zeros_like(self.values))

    def shares(self, mask: TokenChoice) -> dict[str, float]:
        """Returns how its pull is spread over the tokens of `mask`.

        clamped: share of the tokens where the term is not 0 and its pull is exactly 0: at a clip, a clamp or a cap.
        top_share: what the `TOP_SHARE` of the tokens with the largest pulls, at least one, have of all pulls: 0.01 where
        all pull alike, 1 where few do all. NaN for a term that pulls nowhere.
        """
        sizes, values = self.sizes[mask].double(), self.values[mask]
        total = float(sizes.sum())
        most = sizes.topk(math.ceil(TOP_SHARE * len(sizes))).values
        return {
            "clamped": float(((values != 0) & (sizes == 0)).double().mean()),
            "top_share": float(most.sum()) / total if total else math.nan,
        }

    def fault(self, mask: TokenChoice) -> str | None:
        """Says why the term cannot do what its weight says; None where nothing speaks against it.

        A term that is 0 at every token is no fault: a reference KL is, until the policy has moved.
        """
        if not self.of:
            return (
                "has a weight and no gradient: it is a constant, since nothing that it reads of the updated policy "
                "carries any. Have it look with policy=current (of PAPO's terms fidelity.masked_policy=current), or "
                "set its weight to 0"
            )
        if not self.is_in_loss:
            return (
                "is computed and is not in the loss with its weight: no gradient of it reaches the policy. Add it "
                "before the total is formed"
            )
        largest = {name: float(pull[mask].abs().max()) for name, pull in self.of.items()}
        most = max(largest.values())
        if most == 0.0 and bool((self.values[mask] != 0).any()):
            return (
                "has a weight and no gradient: its derivative is 0 at every token where it has a value. Raise its "
                "clamp or cap, or set its weight to 0"
            )
        for (view, quantity), size in largest.items():
            if most and size <= _CANCELLED * most:
                return (
                    f"reads the {quantity} given the view {view!r} and has no gradient there: they cancel. Choose "
                    "another divergence or estimator of it"
                )
        return None


def term_pulls(
    objective: Objective, batch: RolloutBatch, scores: TokenScores, *, progress: float
) -> dict[str, TermPull]:
    """Returns the pull of every term that has a weight at this point of the run, by name.

    Args:
        objective: whose terms.
        batch: rollouts; they are the minibatch.
        scores: of the policy that is updated; those that carry gradient are what is pulled. Nothing of their graph
            is read or freed.
        progress: share of the run that is done.

    Raises:
        ValueError: as of the objective.
        NonFiniteTermError: the same.
    """
    leaves = {
        view: seen.map(lambda values: values.detach().requires_grad_(values.requires_grad))
        for view, seen in scores.items()
    }
    pulled = {
        (view, each.name): value
        for view, seen in leaves.items()
        for each in fields(seen)
        if (value := getattr(seen, each.name)) is not None and value.requires_grad
    }
    weights = {name: weight for name, weight in objective.weights(progress).items() if weight}
    with torch.enable_grad():
        terms = objective(batch, leaves, minibatch=batch, progress=progress)
    with torch.no_grad():
        values = {name: objective.token_values(name, batch, leaves) for name in weights}
    return {
        name: TermPull(
            name=name,
            values=values[name],
            of=_derivatives(weight * terms[name], pulled),
            is_in_loss=_is_weighted(terms["total"], terms[name], weight),
        )
        for name, weight in weights.items()
    }


def _derivatives(value: Tensor, of: Mapping[ScoreName, Tensor]) -> dict[ScoreName, Tensor]:
    if not value.requires_grad or not of:
        return {}
    found = torch.autograd.grad(value, list(of.values()), retain_graph=True, allow_unused=True)
    return {name: each for name, each in zip(of, found, strict=True) if each is not None}


def _is_weighted(total: Tensor, term: Tensor, weight: float) -> bool:
    """Whether d total / d term is the weight."""
    if not (total.requires_grad and term.requires_grad):
        return False
    [found] = torch.autograd.grad(total, [term], retain_graph=True, allow_unused=True)
    return found is not None and math.isclose(float(found), weight, rel_tol=1e-3)
