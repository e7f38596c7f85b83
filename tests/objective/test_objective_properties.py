from dataclasses import replace

import pytest
import torch
from objective_checks import (
    ALL_ON,
    FIDELITIES,
    FIELDS,
    LENGTHS,
    NUM_RESPONSES,
    TERMS,
    ToyPolicy,
    by_view,
    check_cutting_never_matters,
    check_descent_moves_the_term,
    check_every_term_is_alive,
    check_extra_padding_never_matters,
    check_masked_branch_gradient,
    check_matches_the_definition,
    check_no_term_is_orphaned,
    check_padding_never_matters,
    constant_terms,
    evaluate,
    flat,
    make_batch,
    make_objective,
    parameter_gradients,
    with_masked_old,
)

from papo.types import IMAGE, RolloutBatch

OBJECTIVES = ("grpo", "dapo", "papo_g", "papo_d")
each_fidelity = pytest.mark.parametrize("fidelity", FIDELITIES)


@each_fidelity
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_term_matches_its_definition(fidelity, objective):
    check_matches_the_definition(fidelity, objective, overrides=())


@each_fidelity
@pytest.mark.parametrize("average", ["token", "sequence"])
@pytest.mark.parametrize("entropy_average", ["token", "sequence"])
def test_both_averages_match_their_definition(fidelity, average, entropy_average):
    averages = (f"objective.average={average}", f"objective.entropy_average={entropy_average}")
    check_matches_the_definition(fidelity, overrides=(*ALL_ON, *averages))


@each_fidelity
@pytest.mark.parametrize("cap", [1.2, 1000.0])
def test_the_corrected_surrogate_matches_its_definition(fidelity, cap):
    check_matches_the_definition(fidelity, overrides=(*ALL_ON, f"objective.importance_cap={cap}"))


@each_fidelity
def test_every_term_reaches_the_policy(fidelity):
    check_every_term_is_alive(fidelity)


@each_fidelity
def test_no_term_is_orphaned_from_the_total(fidelity):
    check_no_term_is_orphaned(fidelity)


@pytest.mark.parametrize(
    ("fidelity", "term"),
    [(f, term) for f in FIDELITIES for term in TERMS if term not in constant_terms(f)],
)
def test_descent_moves_each_term_the_published_way(fidelity, term):
    check_descent_moves_the_term(fidelity, term)


@each_fidelity
def test_padding_never_matters(fidelity):
    check_padding_never_matters(fidelity)
    check_extra_padding_never_matters(fidelity)


@each_fidelity
@pytest.mark.parametrize(
    "extra",
    [
        (),
        ("objective.perception_top_p=0.4",),
        ("objective.gate=correct",),
        ("objective.importance_cap=1.2",),
        ("objective.average=token", "objective.entropy_average=sequence"),
        ("objective.average=sequence", "objective.entropy_average=token"),
    ],
)
def test_cutting_into_micro_batches_never_matters(fidelity, extra):
    check_cutting_never_matters(fidelity, (*ALL_ON, *extra))


@each_fidelity
def test_the_masked_branch_is_live_exactly_where_the_mode_says(fidelity):
    check_masked_branch_gradient(fidelity)


@each_fidelity
def test_without_perception_terms_papo_is_grpo(fidelity):
    policy = ToyPolicy(1)
    batch = make_batch(policy)
    off = ("objective.gamma=0.0", "objective.eta_full=0.0", "objective.eta_masked=0.0")
    papo = evaluate(make_objective(fidelity, "papo_g", off), policy, batch)["total"]
    grpo = evaluate(make_objective(fidelity, "grpo"), policy, batch)["total"]
    torch.testing.assert_close(papo, grpo, rtol=0, atol=0)
    torch.testing.assert_close(
        parameter_gradients(papo, policy), parameter_gradients(grpo, policy), rtol=0, atol=0
    )


@each_fidelity
def test_grpo_ignores_the_masked_view_even_if_it_is_infinite(fidelity):
    policy = ToyPolicy(1)
    batch = make_batch(policy)
    masked_logprobs = torch.where(batch.response_mask, -torch.inf, 0.0)
    broken = with_masked_old(batch, masked_logprobs.double())
    grpo = make_objective(fidelity, "grpo")
    torch.testing.assert_close(
        evaluate(grpo, policy, broken)["total"], evaluate(grpo, policy, batch)["total"]
    )


@each_fidelity
def test_permuting_the_rollouts_of_a_group_permutes_gradients_and_keeps_terms(fidelity):
    policy = ToyPolicy(1)
    batch = make_batch(policy)
    objective = make_objective(fidelity, "papo_g", ALL_ON)
    order = torch.arange(len(LENGTHS)).reshape(-1, NUM_RESPONSES)[:, [2, 0, 1]].reshape(-1)
    scores = flat(policy.score(batch.response_ids, batch.response_mask))
    leaves = {f: getattr(scores, f).detach().requires_grad_() for f in FIELDS}
    shuffled = RolloutBatch(
        num_responses=NUM_RESPONSES,
        response_mask=batch.response_mask[order],
        old_logprobs=batch.old_logprobs[order],
        ref_logprobs=batch.ref_logprobs[order],
        old_views={"masked": batch.old_views["masked"].map(lambda values: values[order])},
        advantages=batch.advantages[order],
        correct=batch.correct[order],
    )
    straight = objective(batch, by_view(**leaves), minibatch=batch, progress=0.0)
    moved_leaves = {f: leaf.detach()[order].requires_grad_() for f, leaf in leaves.items()}
    moved = objective(shuffled, by_view(**moved_leaves), minibatch=shuffled, progress=0.0)
    for name in straight:
        torch.testing.assert_close(moved[name], straight[name], rtol=1e-12, atol=1e-14)
    (straight_grad,) = torch.autograd.grad(straight["total"], leaves["logprobs"])
    (moved_grad,) = torch.autograd.grad(moved["total"], moved_leaves["logprobs"])
    torch.testing.assert_close(moved_grad, straight_grad[order], rtol=1e-12, atol=1e-14)


@each_fidelity
def test_a_mask_that_hides_nothing_gives_no_perception_kl_and_no_pull(fidelity):
    policy = ToyPolicy(1)
    with torch.no_grad():
        policy.image.zero_()  # both views see the same
    batch = make_batch(policy)
    # The masked view of the rollout policy is stale; on policy it is the current one.
    scores = policy.score(batch.response_ids, batch.response_mask)
    on_policy = replace(
        with_masked_old(batch, scores["masked"].logprobs.detach()),
        old_logprobs=scores[IMAGE].logprobs.detach(),
    )
    terms = make_objective(fidelity)(on_policy, scores, minibatch=on_policy, progress=0.0)
    torch.testing.assert_close(
        terms["perception_kl"], torch.zeros((), dtype=torch.float64), rtol=0, atol=1e-12
    )
    assert parameter_gradients(terms["perception_kl"], policy).norm() < 1e-12


def test_an_entropy_averaged_over_padding_would_be_smaller():
    # Two rollouts of lengths 1 and 3, every sampled token has probability 1/2: H = log 2 however
    # it is averaged. Over the padded 2 x 3 tensor it would be 4/6 log 2.
    objective = make_objective("paper", "papo_d")
    mask = torch.tensor([[True, False, False], [True, True, True]])
    logprobs = torch.where(mask, torch.tensor(0.5, dtype=torch.float64).log(), 0.0)
    batch = RolloutBatch(
        num_responses=2,
        response_mask=mask,
        old_logprobs=logprobs,
        advantages=torch.zeros(2, 3, dtype=torch.float64),
        correct=torch.tensor([True, False]),
    )
    scores = by_view(logprobs=logprobs, masked_logprobs=logprobs)
    terms = objective(batch, scores, minibatch=batch, progress=0.0)
    log_two = torch.tensor(2.0, dtype=torch.float64).log()
    torch.testing.assert_close(terms["entropy"], log_two)
    torch.testing.assert_close(terms["masked_entropy"], log_two)
