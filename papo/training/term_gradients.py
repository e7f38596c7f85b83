"""What each term of the objective does to the weights: its gradient alone, measured beside the update.

Gradients are taken as they are made, weight by weight, and only the surrogate's is held: no more than the update
itself holds. Nothing of the update is touched, no random number is drawn, and no feature is remembered.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from papo.objective import ClippedSurrogate, Objective, TermPull, term_pulls
from papo.statistics.term_gradients import PREFIX
from papo.training.microbatches import trim
from papo.training.random_state import random_state, restore_random_state
from papo.types import IMAGE, RolloutBatch, TokenScores

WHOLE = "norm"


@dataclass(frozen=True, slots=True, kw_only=True)
class TermMeasures:
    """What was measured.

    Attributes:
        numbers: by column of metrics.csv.
        faults: what a part of the objective cannot do, by the key that sets it.
    """

    numbers: dict[str, float]
    faults: dict[str, str]


def parts_of(policy: Any) -> dict[str, list[nn.Parameter]]:
    """The trained parameters of the language model, the vision tower and the head; of what is trained of them.

    A head that is tied to the embeddings holds their gradient too; adapters belong to what they adapt.
    """
    head = {id(policy.adapter.head_weight)}
    vision = {id(parameter) for parameter in policy.picture_parameters()}
    parts: dict[str, list[nn.Parameter]] = {"language": [], "vision": [], "head": []}
    for parameter in policy.parameters():
        if parameter.requires_grad:
            name = "head" if id(parameter) in head else "language"
            parts["vision" if id(parameter) in vision else name].append(parameter)
    return {name: parameters for name, parameters in parts.items() if parameters}


def column_names(objective: Objective, policy: Any) -> list[str]:
    """The columns of what `measure_terms` measures, the same in every rollout."""
    norms = [WHOLE, *(f"{WHOLE}_{part}" for part in parts_of(policy))]
    measures = (*norms, "cosine", "clamped", "top_share")
    terms = (name for name, term in objective.terms.items() if term.weight)
    return [f"{PREFIX}{name}/{measure}" for name in terms for measure in measures]


def first_that_learn(batch: RolloutBatch, num_prompts: int) -> RolloutBatch:
    """The first prompts of a batch, from the first on whose responses differ in what they earned."""
    learns = (batch.advantages != 0).any(dim=1).reshape(-1, batch.num_responses).any(dim=1)
    start = min(int(learns.int().argmax()), max(len(batch.groups) - num_prompts, 0))
    return trim(batch.select_groups(start, start + num_prompts))


def measure_terms(
    policy: Any, objective: Objective, batch: RolloutBatch, *, progress: float, looks: bool
) -> TermMeasures:
    """Returns the measures of every term that has a weight, over a few rollouts as if they were the minibatch.

    Args:
        policy: whose trained parameters hold no gradient; they hold none afterwards.
        objective: whose terms.
        batch: the rollouts; one pass.
        progress: share of the run that is done.
        looks: whether every view is compared with the image, which costs a pass more for each that updates do not
            score.

    Raises:
        NonFiniteTermError: as of the objective.
    """
    state = random_state()
    try:
        with policy.remembering_nothing():
            scores = _score(policy, objective, batch)
            pulls = term_pulls(objective, batch, scores, progress=progress)
            views = objective.needs.views if looks else ()
            faults = _faults_of_views(policy, batch, scores, sorted(views))
            faults |= {
                f"objective.terms.{name}": fault
                for name, pull in pulls.items()
                if (fault := pull.fault(batch.response_mask)) is not None
            }
            return TermMeasures(
                numbers=_numbers(policy, objective, pulls, scores, batch.response_mask),
                faults=faults,
            )
    finally:
        restore_random_state(state)
        for parameter in policy.parameters():
            parameter.grad = None


def _score(policy: Any, objective: Objective, batch: RolloutBatch) -> TokenScores:
    """Every view in a pass of its own where the head need not compare them: what one does not pull costs nothing."""
    needs = objective.needs
    views: tuple[str, ...] = (IMAGE, *needs.live_views)
    passes = [views] if needs.full_vocabulary else [(view,) for view in views]
    scores: dict[str, Any] = {}
    with torch.enable_grad():
        for together in passes:
            scores |= policy.score(
                batch.groups,
                batch.response_ids,
                batch.response_mask,
                views=together,
                full_vocabulary=needs.full_vocabulary,
            )
    return scores


@torch.no_grad()
def _faults_of_views(
    policy: Any, batch: RolloutBatch, scores: TokenScores, views: Sequence[str]
) -> dict[str, str]:
    """Views that leave the log-prob of every token as it is, though there are pictures to hide."""
    if all(group.patches is None for group in batch.groups):
        return {}
    of_responses = (batch.groups, batch.response_ids, batch.response_mask)
    faults = {}
    for view in views:
        seen = scores[view] if view in scores else policy.score(*of_responses, views=(view,))[view]
        image = scores[IMAGE].logprobs
        rounding = 16 * torch.finfo(image.dtype).eps
        if torch.allclose(seen.logprobs, image, rtol=rounding, atol=rounding):
            key = "masking" if view == "masked" else f"objective.views.{view}"
            faults[key] = (
                f"the view {view!r} changes nothing: every token of {batch.num_rollouts} responses is as likely as "
                "given the image. What it hides does not reach the model, or nothing is hidden"
            )
    return faults


def _numbers(
    policy: Any,
    objective: Objective,
    pulls: Mapping[str, TermPull],
    scores: TokenScores,
    mask: Bool[Tensor, "rollout token"],
) -> dict[str, float]:
    numbers = dict.fromkeys(column_names(objective, policy), math.nan)
    surrogate = next(
        (name for name in pulls if isinstance(objective.terms[name], ClippedSurrogate)), None
    )
    sink = _Sink(parts_of(policy))
    # The surrogate first: the others are compared with it.
    for name in sorted(pulls, key=lambda name: name != surrogate):
        norms, cosine = sink.gradient_of(pulls[name], scores, keeps=name == surrogate)
        measures = {**norms, "cosine": cosine, **pulls[name].shares(mask)}
        numbers |= {f"{PREFIX}{name}/{each}": value for each, value in measures.items()}
    return numbers


class _Sink:
    """Takes the gradient of one term after another from the parameters as it arrives.

    Args:
        parts: trained parameters by the name of their part.
    """

    def __init__(self, parts: Mapping[str, Sequence[nn.Parameter]]) -> None:
        self.parts = parts
        self.kept: dict[int, Tensor] = {}
        self.kept_norm = 0.0

    def gradient_of(
        self, pull: TermPull, scores: TokenScores, *, keeps: bool
    ) -> tuple[dict[str, float], float]:
        """Returns norms, of the whole and by part, and the cosine with the gradient that was kept."""
        squares: dict[str, list[Tensor]] = {part: [] for part in self.parts}
        products: list[Tensor] = []

        def take(part: str, parameter: nn.Parameter) -> None:
            gradient = parameter.grad
            assert gradient is not None, "autograd has just made it"
            parameter.grad = None
            squares[part].append(gradient.norm().double().square())
            if keeps:
                self.kept[id(parameter)] = gradient
            if (other := self.kept.get(id(parameter))) is not None:
                products.append((gradient * other).sum().double())

        handles = [
            parameter.register_post_accumulate_grad_hook(lambda one, part=part: take(part, one))
            for part, parameters in self.parts.items()
            for parameter in parameters
        ]
        try:
            reached = {name: each for name, each in pull.of.items() if bool(each.any())}
            if reached and pull.is_in_loss:
                torch.autograd.backward(
                    [getattr(scores[view], quantity) for view, quantity in reached],
                    list(reached.values()),
                    retain_graph=True,
                )
        finally:
            for handle in handles:
                handle.remove()
        by_part = {part: float(sum(found)) for part, found in squares.items()}
        norm = math.sqrt(sum(by_part.values()))
        if keeps:
            self.kept_norm = norm
        sizes = norm * self.kept_norm
        cosine = float(sum(products)) / sizes if sizes else math.nan
        norms = {f"{WHOLE}_{part}": math.sqrt(square) for part, square in by_part.items()}
        return {WHOLE: norm, **norms}, cosine
