"""What a term asks of each token, against its definition; and published failures, each beside its sound twin."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from objective_checks import (
    ALL_ON,
    ToyPolicy,
    make_batch,
    make_objective,
    objective_settings,
    parameter_gradients,
)

from papo.methods import ViewContrast
from papo.objective import Objective, Term, ViewKL, term_pulls
from papo.types import IMAGE, Needs, ViewScores


@pytest.fixture(scope="module")
def rollouts():
    policy = ToyPolicy(1)
    batch = make_batch(policy)
    return policy, batch, policy.score(batch.response_ids, batch.response_mask)


def pulls_of(objective, rollouts, progress=0.0):
    return term_pulls(objective, *rollouts[1:], progress=progress)


def faults_of(objective, rollouts):
    mask = rollouts[1].response_mask
    return {
        name: fault
        for name, pull in pulls_of(objective, rollouts).items()
        if (fault := pull.fault(mask)) is not None
    }


# --- the measure ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fidelity", ["official", "paper", "exact"])
def test_through_the_scores_the_pulls_are_the_gradients_of_the_terms(fidelity, rollouts):
    policy, batch, scores = rollouts
    objective = make_objective(fidelity, "papo_g", ALL_ON)
    terms = objective(batch, scores, minibatch=batch, progress=0.0)
    weights = objective.weights(0.0)
    for name, pull in pulls_of(objective, rollouts).items():
        through = sum(
            (getattr(scores[view], quantity) * each).sum()
            for (view, quantity), each in pull.of.items()
        )
        got = parameter_gradients(torch.as_tensor(through), policy)
        expected = parameter_gradients(weights[name] * terms[name], policy)
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


def test_the_pull_of_k3_is_its_derivative_by_hand(rollouts):
    _, batch, scores = rollouts
    settings = objective_settings("paper", "papo_g", ALL_ON)
    pull = pulls_of(make_objective("paper", "papo_g", ALL_ON), rollouts)["perception_kl"]
    assert pull.of.keys() == {(IMAGE, "logprobs"), ("masked", "logprobs")}
    lengths = batch.response_mask.sum(1).tolist()
    for row, length in enumerate(lengths):
        for token in range(length):
            p, q = (scores[v].logprobs[row, token].item() for v in (IMAGE, "masked"))
            # Raised, averaged over responses: d(-gamma k3)/d log p = -gamma (1 - q/p).
            by_hand = -settings.gamma * (1 - math.exp(q - p)) / length / len(lengths)
            got = [float(each[row, token]) for each in pull.of.values()]
            assert got == pytest.approx([by_hand, -by_hand], rel=1e-9)


def test_shares_are_those_of_a_walk_over_the_tokens(rollouts):
    _, batch, _ = rollouts
    mask = batch.response_mask
    pull = pulls_of(make_objective("official", "papo_g", ALL_ON), rollouts)["surrogate"]
    sizes, clamped = [], 0
    for row, token in mask.nonzero().tolist():
        sizes.append(abs(float(pull.of[IMAGE, "logprobs"][row, token])))
        clamped += sizes[-1] == 0 and float(pull.values[row, token]) != 0
    assert clamped > 0  # the batch is made to be clipped
    shares = pull.shares(mask)
    assert shares["clamped"] == pytest.approx(clamped / len(sizes))
    # One per cent of 35 tokens is one.
    assert shares["top_share"] == pytest.approx(max(sizes) / sum(sizes))


def test_padding_never_matters(rollouts):
    _, batch, scores = rollouts
    mask = batch.response_mask
    broken = {
        view: seen.map(lambda each: each.masked_fill(~mask, float("nan")))
        for view, seen in scores.items()
    }
    objective = make_objective("paper", "papo_g", ALL_ON)
    found = term_pulls(objective, batch, broken, progress=0.0)
    for name, pull in pulls_of(objective, rollouts).items():
        assert found[name].shares(mask) == pytest.approx(pull.shares(mask))
        assert found[name].fault(mask) is None


def test_a_term_whose_weight_has_fallen_to_0_is_not_measured(rollouts):
    objective = make_objective("paper", "papo_g", (*ALL_ON, "objective.gamma_anneal_until=0.5"))
    assert "perception_kl" in pulls_of(objective, rollouts, progress=0.4)
    assert pulls_of(objective, rollouts, progress=0.5).keys() == {"surrogate", "kl_ref"}


def test_the_graph_of_the_scores_is_left_as_it_was(rollouts):
    policy, batch, _ = rollouts
    scores = policy.score(batch.response_ids, batch.response_mask)
    term_pulls(make_objective("paper"), batch, scores, progress=0.0)
    scores[IMAGE].logprobs.sum().backward()
    assert all(parameter.grad is not None for parameter in policy.parameters())
    policy.zero_grad()


# --- what cannot be right, and its sound twin ----------------------------------------------------


class BoundTooEarly(Objective):
    """The authors' Qwen3-VL branch: the loss is bound before the perception terms are added to it."""

    def __call__(self, batch, scores, **how):
        terms, weights = super().__call__(batch, scores, **how), self.weights(0.0)
        early = sum(weights[name] * terms[name] for name in ("surrogate", "kl_ref"))
        return {**terms, "total": early}


def test_a_loss_that_is_bound_before_its_terms_are_added_is_named(rollouts):
    sound = make_objective("paper", "papo_g", ALL_ON)
    orphaned = BoundTooEarly(terms=sound.terms, count_epsilon=0.0)
    faults = faults_of(orphaned, rollouts)
    assert faults.keys() == {"perception_kl", "entropy", "masked_entropy"}
    assert all("not in the loss" in fault for fault in faults.values())
    assert faults_of(sound, rollouts) == {}


@dataclass(kw_only=True, eq=False)
class WithoutGraph(ViewKL):
    """A perception loss that is computed from numbers and not from the graph."""

    def __call__(self, batch, scores):
        return super().__call__(batch, scores).detach()


def test_a_perception_loss_outside_the_graph_is_named(rollouts):
    terms = make_objective("paper", "papo_g").terms
    how = {"weight": 0.1, "direction": "raise", "view": "masked", "policy": "current"}
    for kind, accused in ((WithoutGraph, True), (ViewKL, False)):
        own = kind(**how, estimator="k3")
        objective = Objective(terms={**terms, "perception_kl": own}, count_epsilon=0.0)
        found = faults_of(objective, rollouts).get("perception_kl", "")
        assert ("has a weight and no gradient" in found) is accused


def test_the_double_entropy_whose_second_half_is_a_constant_is_named(rollouts):
    faults = faults_of(make_objective("official", "papo_g", ALL_ON), rollouts)
    assert faults.keys() == {"masked_entropy"}
    assert "it is a constant" in faults["masked_entropy"]
    detached = (*ALL_ON, "fidelity.masked_policy=current_detached")
    assert faults_of(make_objective("paper", "papo_g", detached), rollouts).keys() == {
        "masked_entropy"
    }
    assert faults_of(make_objective("paper", "papo_g", ALL_ON), rollouts) == {}


@pytest.mark.parametrize(("divergence", "accused"), [("k1", True), ("k3", False)])
def test_an_anchor_that_cancels_is_named(divergence, accused, rollouts):
    """CPPO's second code compares two k1, from which the picture's own log-prob drops out."""
    policy, batch, scores = rollouts
    scores = {
        **scores,
        "remove": ViewScores(logprobs=0.7 * scores["masked"].logprobs),
        "preserve": ViewScores(logprobs=0.9 * scores[IMAGE].logprobs),
    }
    contrast = ViewContrast(
        weight=0.01,
        preserve="preserve",
        remove="remove",
        temperature=0.1,
        top_share=None,
        divergence=divergence,
        gate="all",
    )
    objective = Objective(terms={"contrast": contrast}, count_epsilon=0.0)
    batch = replace(batch, term_weights={"contrast": batch.response_mask.double()})
    faults = faults_of(objective, (policy, batch, scores))
    assert bool(faults) is accused
    if accused:
        assert "the logprobs given the view 'image'" in faults["contrast"]


@dataclass(kw_only=True, eq=False)
class Capped(Term):
    """A constant wherever it is above its cap."""

    cap: float

    @property
    def needs(self):
        return Needs()

    def __call__(self, batch, scores):
        return (-scores[IMAGE].logprobs).clamp(max=self.cap)


@pytest.mark.parametrize(("cap", "accused"), [(1e-9, True), (100.0, False)])
def test_a_term_that_is_at_its_cap_everywhere_is_named(cap, accused, rollouts):
    objective = Objective(terms={"own": Capped(weight=1.0, cap=cap)}, count_epsilon=0.0)
    faults = faults_of(objective, rollouts)
    assert ("its derivative is 0 at every token" in faults.get("own", "")) is accused
    [pull] = pulls_of(objective, rollouts).values()
    assert pull.shares(rollouts[1].response_mask)["clamped"] == float(accused)


def test_a_reference_kl_before_the_first_update_is_no_fault(rollouts):
    """At the reference its value and its gradient are 0: that is what it should be."""
    policy, batch, scores = rollouts
    at_reference = replace(batch, ref_logprobs=scores[IMAGE].logprobs.detach())
    objective = make_objective("paper")
    assert faults_of(objective, (policy, at_reference, scores)) == {}
    [kl_ref] = [
        pull.shares(batch.response_mask)
        for name, pull in pulls_of(objective, (policy, at_reference, scores)).items()
        if name == "kl_ref"
    ]
    assert kl_ref["clamped"] == 0.0
    assert math.isnan(kl_ref["top_share"])
