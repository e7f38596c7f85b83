"""Each mutant breaks the objective once, the way others have; a named check must notice."""

import pytest
import torch
from objective_checks import (
    check_cutting_never_matters,
    check_descent_moves_the_term,
    check_every_term_is_alive,
    check_extra_padding_never_matters,
    check_masked_branch_gradient,
    check_matches_the_definition,
    check_no_term_is_orphaned,
    check_padding_never_matters,
)

import papo.functional.divergence as divergence
import papo.objective.objective as objective_module
import papo.objective.term as term_module
import papo.objective.terms as terms_module
from papo.functional import kl_k1, kl_k2, sequence_mean, token_mean
from papo.objective import Objective, ViewEntropy


def assert_dies(check, *arguments):
    with pytest.raises(AssertionError):
        check(*arguments)


def flip(monkeypatch, term):
    weights = Objective.weights

    def flipped(self, progress):
        right = weights(self, progress)
        return {**right, term: -right[term]}

    monkeypatch.setattr(Objective, "weights", flipped)


@pytest.mark.parametrize("fidelity", ["official", "paper", "exact"])
def test_the_sign_of_gamma(monkeypatch, fidelity):
    flip(monkeypatch, "perception_kl")
    assert_dies(check_descent_moves_the_term, fidelity, "perception_kl")
    assert_dies(check_no_term_is_orphaned, fidelity)
    assert_dies(check_matches_the_definition, fidelity)


def test_the_sign_of_an_entropy(monkeypatch):
    flip(monkeypatch, "entropy")
    assert_dies(check_descent_moves_the_term, "exact", "entropy")
    assert_dies(check_matches_the_definition, "exact")


@pytest.mark.parametrize("other", [kl_k1, kl_k2])
@pytest.mark.parametrize("fidelity", ["official", "paper"])
def test_another_estimator_for_k3(monkeypatch, fidelity, other):
    monkeypatch.setattr(divergence, "kl_k3", other)
    assert_dies(check_matches_the_definition, fidelity)


@pytest.mark.parametrize("fidelity", ["official", "paper"])
def test_the_two_views_swapped(monkeypatch, fidelity):
    estimate = terms_module.estimate_divergence
    monkeypatch.setattr(
        terms_module,
        "estimate_divergence",
        lambda name, p, q, **options: estimate(name, q, p, **options),
    )
    assert_dies(check_matches_the_definition, fidelity)


def test_a_token_mean_for_the_sequence_mean(monkeypatch):
    monkeypatch.setattr(
        term_module,
        "sequence_mean",
        lambda values, mask, num_rollouts, count_epsilon: token_mean(
            values, mask, num_tokens=int(mask.sum()), count_epsilon=count_epsilon
        ),
    )
    assert_dies(check_matches_the_definition, "paper")
    assert_dies(check_cutting_never_matters, "paper")


def test_a_sequence_mean_for_the_token_mean(monkeypatch):
    monkeypatch.setattr(
        term_module,
        "token_mean",
        lambda values, mask, num_tokens, count_epsilon: sequence_mean(
            values, mask, num_rollouts=len(mask), count_epsilon=count_epsilon
        ),
    )
    assert_dies(check_matches_the_definition, "official")


def test_counts_of_the_micro_batch_for_those_of_the_minibatch(monkeypatch):
    averaged = objective_module.averaged

    def local(values, batch, average, minibatch, count_epsilon):
        scale = minibatch.num_tokens / batch.num_tokens if average == "token" else 1.0
        return averaged(values, batch, average, minibatch, count_epsilon) * scale

    monkeypatch.setattr(objective_module, "averaged", local)
    assert_dies(check_cutting_never_matters, "official")


def test_the_mask_dropped_from_the_scores(monkeypatch):
    monkeypatch.setattr(objective_module, "zero_padding", lambda values, mask: values)
    assert_dies(check_padding_never_matters, "paper")


def test_the_mask_multiplied_instead_of_selected(monkeypatch):
    monkeypatch.setattr(objective_module, "zero_padding", lambda values, mask: values * mask)
    assert_dies(check_padding_never_matters, "paper")


def test_terms_averaged_over_padding(monkeypatch):
    def over_padding(values, mask, num_tokens, count_epsilon):
        return values.where(mask, 0.0).sum() / mask.numel()

    monkeypatch.setattr(term_module, "token_mean", over_padding)
    assert_dies(check_extra_padding_never_matters, "official")
    assert_dies(check_matches_the_definition, "official")


def test_a_detached_masked_branch_in_a_mode_that_claims_gradient(monkeypatch):
    look = terms_module.look

    def detached(batch, scores, view, *rest):
        seen = look(batch, scores, view, *rest)
        return seen.detach() if view == "masked" else seen

    monkeypatch.setattr(terms_module, "look", detached)
    assert_dies(check_every_term_is_alive, "paper")
    assert_dies(check_masked_branch_gradient, "paper")


@pytest.mark.parametrize("fidelity", ["official", "paper", "exact"])
@pytest.mark.parametrize("term", ["kl_ref", "perception_kl", "entropy"])
def test_a_term_orphaned_from_the_loss(monkeypatch, fidelity, term):
    weighted_sum = objective_module._weighted_sum

    def orphaning(terms, weights):
        return weighted_sum({**terms, term: terms[term].detach()}, weights)

    monkeypatch.setattr(objective_module, "_weighted_sum", orphaning)
    assert_dies(check_no_term_is_orphaned, fidelity)
    assert_dies(check_descent_moves_the_term, fidelity, term)


def test_a_loss_bound_before_its_terms_were_added(monkeypatch):
    # The official Qwen3-VL branch: loss = surrogate + kl_ref; the rest is added to another name.
    weighted_sum = objective_module._weighted_sum

    def bound_early(terms, weights):
        return weighted_sum({name: terms[name] for name in ("surrogate", "kl_ref")}, weights)

    monkeypatch.setattr(objective_module, "_weighted_sum", bound_early)
    assert_dies(check_no_term_is_orphaned, "official")


def test_the_dual_clip_lost(monkeypatch):
    clipped_surrogate = terms_module.clipped_surrogate
    monkeypatch.setattr(
        terms_module,
        "clipped_surrogate",
        lambda *inputs, **options: clipped_surrogate(*inputs, **{**options, "dual_clip": None}),
    )
    assert_dies(check_matches_the_definition, "paper", "papo_g", ("objective.dual_clip=1.05",))


def test_the_clip_lost(monkeypatch):
    clipped_surrogate = terms_module.clipped_surrogate
    monkeypatch.setattr(
        terms_module,
        "clipped_surrogate",
        lambda *inputs, **options: clipped_surrogate(*inputs, **{**options, "clip_high": 1e6}),
    )
    assert_dies(check_matches_the_definition, "paper")


CORRECTED = ("paper", "papo_g", ("objective.importance_cap=1.2",))


@pytest.mark.parametrize(
    "mutant",
    [
        lambda old, engine, cap: torch.ones_like(old),
        lambda old, engine, cap: (engine - old).exp().clamp(max=cap),
        lambda old, engine, cap: (old - engine).exp(),
        lambda old, engine, cap: (old - engine).exp().clamp(min=1 / cap, max=cap),
    ],
    ids=["no correction", "the ratio upside down", "no cap", "a floor too"],
)
def test_another_correction_for_the_engine(monkeypatch, mutant):
    check_matches_the_definition(*CORRECTED)
    monkeypatch.setattr(terms_module, "truncated_importance", mutant)
    assert_dies(check_matches_the_definition, *CORRECTED)


def test_sampled_entropies_where_exact_ones_are_claimed(monkeypatch):
    monkeypatch.setattr(
        ViewEntropy, "__call__", lambda self, batch, scores: -scores[self.view].logprobs
    )
    assert_dies(check_matches_the_definition, "exact")


def test_the_checks_pass_on_the_unbroken_objective():
    for fidelity in ("official", "paper", "exact"):
        check_matches_the_definition(fidelity)
        check_no_term_is_orphaned(fidelity)
        check_cutting_never_matters(fidelity)
        check_padding_never_matters(fidelity)
        check_extra_padding_never_matters(fidelity)
        check_every_term_is_alive(fidelity)
        check_masked_branch_gradient(fidelity)
        check_descent_moves_the_term(fidelity, "perception_kl")
    check_matches_the_definition("paper", "papo_g", ("objective.dual_clip=1.05",))
