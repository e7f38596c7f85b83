"""The objective: credits that divide the advantages, a sum of named, weighted terms, and what both need.

    total = sum over the terms of weight * (+1 to lower, -1 to raise) * average(term)        (minimised)

GRPO is a surrogate and a reference KL; PAPO adds a perception KL and two entropies (conf/objective).
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor

from papo.functional import zero_padding
from papo.objective.credit import Blocks, Credit, assign_credit, check_credit
from papo.objective.errors import NonFiniteTermError, SettingError
from papo.objective.term import Term, TokenChoice, TokenValues, averaged
from papo.types import IMAGE, MinibatchCounts, Needs, RolloutBatch, TokenScores


class Objective:
    """What training minimises.

    Args:
        terms: by name, in the order in which they are added up.
        count_epsilon: added to every token count that divides (official code: 1e-8).
        credits: by name, in the order in which they divide the advantages among tokens; none: all tokens of a
            response have its advantage.

    Attributes:
        needs: what must be scored for the credits and for the terms that have a weight; nothing else is.
        factors: of the weights of terms, by their names, 1 where none stands here; whoever steers a run sets them.

    Raises:
        SettingError: a negative count_epsilon, a term named "total", no term with a weight, or a credit that needs
            what changes within a rollout.
    """

    def __init__(
        self,
        *,
        terms: Mapping[str, Term],
        count_epsilon: float,
        credits: Mapping[str, Credit] | None = None,
    ) -> None:
        if not 0 <= count_epsilon < torch.inf:
            raise SettingError(f"{{count_epsilon}} is 0 or positive; got {count_epsilon}")
        if "total" in terms:
            raise SettingError("total is the sum of the terms; got a term of that name")
        if not any(term.weight for term in terms.values()):
            raise SettingError(
                "an objective has at least one term with a weight; got "
                f"{', '.join(terms) or 'none'}. Set objective.terms."
            )
        self.terms = dict(terms)
        self.credits = dict(credits or {})
        for name, credit in self.credits.items():
            check_credit(name, credit)
        self.count_epsilon = float(count_epsilon)
        self.factors: dict[str, float] = {}
        self.needs = reduce(
            Needs.__or__,
            (
                *(credit.needs for credit in self.credits.values()),
                *(term.needs for term in terms.values() if term.weight),
            ),
            Needs(),
        )

    @property
    def depends_on_progress(self) -> bool:
        """Whether a rollout's loss depends on how many rollouts the run has."""
        return any(term.anneal_until is not None for term in self.terms.values()) or any(
            credit.depends_on_progress for credit in self.credits.values()
        )

    @property
    def reads_rollouts(self) -> bool:
        """Whether something is decided over a whole rollout, and so whether `credit` must be asked."""
        return bool(self.credits) or any(t.chooses and t.weight for t in self.terms.values())

    def credit(self, batch: RolloutBatch, blocks: Blocks, *, progress: float) -> RolloutBatch:
        """Returns the whole rollout with the advantages that its tokens get, and their weights in terms that choose.

        Raises:
            ValueError: a credit lacks its inputs, or returned no finite number per token.
        """
        for name, credit in self.credits.items():
            if missing := unmet(credit.needs, batch, {}):
                raise ValueError(f"the credit {name!r} lacks its input: {missing} is missing")
        batch = assign_credit(self.credits, batch, blocks, progress=progress)
        weights = {
            name: chosen_weights(term.choose(batch), batch.response_mask, blocks, term.average)
            for name, term in self.terms.items()
            if term.chooses and term.weight
        }
        return replace(batch, term_weights=weights)

    def weights(self, progress: float) -> dict[str, float]:
        """Returns what each term is multiplied by in the total, at this point of the run."""
        return {
            name: term.weight_at(progress) * self.factors.get(name, 1.0)
            for name, term in self.terms.items()
        }

    def __call__(
        self,
        batch: RolloutBatch,
        scores: TokenScores,
        *,
        minibatch: RolloutBatch | MinibatchCounts,
        progress: float,
    ) -> dict[str, Tensor]:
        """Returns the unweighted terms and their weighted sum "total", the loss; nats per token.

        Each is normalised by the token and rollout counts of `minibatch`, so terms and gradients of its
        micro-batches add up to its own. A term of weight 0 carries no gradient, and is absent where what
        it needs is.

        Raises:
            ValueError: a weighted term lacks its inputs.
            NonFiniteTermError: a weighted term is NaN or infinite.
        """
        scores = _clean(scores, batch)
        weights = self.weights(progress)
        terms: dict[str, Tensor] = {}
        for name, term in self.terms.items():
            missing = unmet(term.needs, batch, scores)
            if not missing and term.chooses and name not in batch.term_weights:
                missing = f"which tokens count (batch.term_weights[{name!r}])"
            if missing:
                if term.weight:
                    raise ValueError(
                        f"the term {name!r} has a weight but not its input: {missing} is missing"
                    )
                continue
            values = self.token_values(name, batch, scores)
            value = averaged(values, batch, term.average, minibatch, self.count_epsilon)
            terms[name] = value if weights[name] != 0.0 else value.detach()
        terms["total"] = _weighted_sum(terms, weights)
        return terms

    def token_values(self, name: str, batch: RolloutBatch, scores: TokenScores) -> TokenValues:
        """Returns the term of that name at each token, before it is averaged; its needs are met."""
        values = self.terms[name](batch, scores)
        if name not in batch.term_weights:
            return values
        # Selected, not multiplied: what is infinite where nobody looks stays out.
        weights_of = batch.term_weights[name]
        return (values * weights_of.to(values)).where(weights_of > 0, 0.0)

    @torch.no_grad()
    def diagnostics(
        self, batch: RolloutBatch, scores: TokenScores, minibatch: RolloutBatch | MinibatchCounts
    ) -> dict[str, Tensor]:
        """Returns what to watch besides the terms, without gradient; docs/fidelity.md defines each.

        Means over the tokens, or the responses, of `minibatch`, so values of its micro-batches add up.
        """
        scores = _clean(scores, batch)
        logprobs = scores[IMAGE].logprobs
        readable = {
            name: term for name, term in self.terms.items() if not unmet(term.needs, batch, scores)
        }
        tokenwise = {
            f"{name}_chosen": (weights > 0).to(logprobs.dtype)
            for name, weights in batch.term_weights.items()
        }
        for term in readable.values():
            tokenwise |= term.watch(batch, scores)
        log_ratio = logprobs - batch.old_logprobs
        tokenwise |= {
            "old_kl": -log_ratio,
            "ratio_mean": log_ratio.exp(),
            "sampled_entropy": -logprobs,
        }
        for view, seen in {**batch.old_views, **scores}.items():
            if view != IMAGE:
                tokenwise[f"sampled_{view}_entropy"] = -seen.logprobs
                prefers = seen.logprobs > logprobs
                tokenwise[f"{view}_preferred_fraction"] = prefers.to(log_ratio.dtype)
        watched = {
            name: averaged(values, batch, "token", minibatch, self.count_epsilon)
            for name, values in tokenwise.items()
        }
        for name, term in readable.items():
            for what, values in term.watch_responses(batch, scores).items():
                watched[f"{name}_{what}"] = averaged(
                    values, batch, "sequence", minibatch, self.count_epsilon
                )
        return watched


def chosen_weights(
    chosen: TokenChoice, mask: TokenChoice, blocks: Blocks, average: str
) -> TokenValues:
    """Returns what turns a mean over tokens, of a minibatch or of a response, into that over the chosen ones: tokens
    per chosen token at these, 0 elsewhere. A response without any counts as 0 among sequences.

    All tokens of the minibatch are counted, so no cut into passes changes it.
    """
    weights = torch.zeros(mask.shape, dtype=torch.float64)
    for rows in blocks.rows("minibatch" if average == "token" else "response"):
        kept = (chosen & mask)[rows]
        weights[rows] = kept * (mask[rows].sum().double() / kept.sum().clamp_min(1))
    return weights


def unmet(needs: Needs, batch: RolloutBatch, scores: TokenScores) -> str:
    """Names the first thing that is needed and not there; empty where all is."""
    if needs.reference and batch.ref_logprobs is None:
        return "the reference policy's log-probs (batch.ref_logprobs)"
    if needs.behaviour and batch.behaviour_logprobs is None:
        return "what the engine that drew the tokens says of them (batch.behaviour_logprobs)"
    if needs.flagged and batch.flagged is None:
        return "which tokens the reward calls false (batch.flagged)"
    for wanted, found, whose in (
        (needs.old, batch.old_views, "rollout policy's"),
        (needs.now, scores, "current policy's"),
    ):
        for view, quantity in sorted(wanted):
            if whose == "rollout policy's" and (view, quantity) == (IMAGE, "logprobs"):
                continue
            if view not in found or getattr(found[view], quantity) is None:
                return f"the {whose} {quantity} given the view {view!r}"
    return ""


def _clean(scores: TokenScores, batch: RolloutBatch) -> TokenScores:
    """The scores with exact zeros at padding, so nothing there can reach a term or a gradient."""
    mask = batch.response_mask
    return {
        view: seen.map(lambda values: zero_padding(values, mask)) for view, seen in scores.items()
    }


def _weighted_sum(
    terms: Mapping[str, Float[Tensor, ""]], weights: Mapping[str, float]
) -> Float[Tensor, ""]:
    """The loss. Terms of weight 0 stay out of it: 0 * inf would make a healthy loss NaN."""
    weighted = {name: term for name, term in terms.items() if weights[name] != 0.0}
    total = torch.stack([weights[name] * term for name, term in weighted.items()]).sum()
    for name, term in weighted.items():
        if not bool(torch.isfinite(term)):
            raise NonFiniteTermError(name, term.item(), total)
    return total
