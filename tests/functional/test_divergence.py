"""What each estimator is worth in expectation: the categorical is small, so expectations are sums."""

import math

import pytest
import torch

from papo.functional import (
    SAMPLED_ESTIMATORS,
    estimate_divergence,
    jensen_shannon,
    kl_k1,
    kl_k2,
    kl_k2_straight_through,
    kl_k3,
    kl_k3_weighted,
    log_ratio,
    total_variation,
)

P_LOGITS = [0.9, -0.3, 0.2, -1.1, 0.4]
Q_LOGITS = [-0.2, 0.5, 0.7, -0.4, 1.3]
OLD_LOGITS = [0.6, 0.1, 0.0, -0.9, 0.7]


@pytest.fixture
def logits():
    double = {"dtype": torch.float64}
    p = torch.tensor(P_LOGITS, **double, requires_grad=True)
    q = torch.tensor(Q_LOGITS, **double, requires_grad=True)
    return p, q, torch.tensor(OLD_LOGITS, **double)


def exact_divergences(p_logits, q_logits):
    log_p, log_q = p_logits.log_softmax(0), q_logits.log_softmax(0)
    p, q = log_p.exp(), log_q.exp()
    log_m = ((p + q) / 2).log()
    return {
        "forward": (p * (log_p - log_q)).sum(),
        "reverse": (q * (log_q - log_p)).sum(),
        "tv": (p - q).abs().sum() / 2,
        "jsd": ((p * (log_p - log_m)).sum() + (q * (log_q - log_m)).sum()) / 2,
    }


def expected_estimate(estimator, p_logits, q_logits, sampler_logits):
    """E over the sampler of the estimator; the sampling itself is not differentiated."""
    log_p = p_logits.log_softmax(0)[None]
    log_q = q_logits.log_softmax(0)[None]
    log_old = sampler_logits.log_softmax(0)[None].detach()
    values = estimate_divergence(estimator, log_p, log_q, old_logprobs=log_old, log_ratio_max=None)
    return (log_old.exp() * values).sum()


def gradient(value, leaf):
    grad = torch.autograd.grad(value, leaf, retain_graph=True, allow_unused=True)[0]
    return torch.zeros_like(leaf) if grad is None else grad


# estimator: the divergence its mean is, and the one its gradients towards p and q belong to
ON_POLICY = {
    "k1": ("forward", None, "forward"),
    "k2": (None, "forward", None),
    "k3": ("forward", "reverse", "forward"),
    "k2_straight_through": ("forward", "forward", "forward"),
    "k3_weighted": ("forward", "forward", "forward"),
    "total_variation": ("tv", "tv", "tv"),
    "jsd": ("jsd", "jsd", "jsd"),
}


@pytest.mark.parametrize("estimator", SAMPLED_ESTIMATORS)
def test_mean_and_gradients_on_policy_are_those_of_the_table(logits, estimator):
    p, q, _ = logits
    value_of, towards_p, towards_q = ON_POLICY[estimator]
    exact = exact_divergences(p, q)
    estimate = expected_estimate(estimator, p, q, p)
    if value_of is not None:
        torch.testing.assert_close(estimate, exact[value_of], rtol=1e-12, atol=0)
    wanted = torch.zeros_like(p) if towards_p is None else gradient(exact[towards_p], p)
    if estimator != "k2":
        torch.testing.assert_close(
            gradient(estimate, q), gradient(exact[towards_q], q), rtol=1e-10, atol=1e-13
        )
    torch.testing.assert_close(gradient(estimate, p), wanted, rtol=1e-10, atol=1e-13)


def test_forward_and_reverse_gradients_differ_so_the_table_says_something(logits):
    p, q, _ = logits
    exact = exact_divergences(p, q)
    forward, reverse = gradient(exact["forward"], p), gradient(exact["reverse"], p)
    assert (forward - reverse).abs().max() > 0.05


def test_only_the_weighted_k3_is_right_for_tokens_of_an_older_policy(logits):
    p, q, old = logits
    exact = exact_divergences(p, q)["forward"]
    wanted = gradient(exact, p)
    weighted = expected_estimate("k3_weighted", p, q, old)
    torch.testing.assert_close(weighted, exact, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient(weighted, p), wanted, rtol=1e-10, atol=1e-13)
    stale = expected_estimate("k2_straight_through", p, q, old)
    assert (gradient(stale, p) - wanted).abs().max() > 1e-3


def test_one_minus_the_ratio_is_no_loss(logits):
    # E_p[1 - q/p] = 0 whatever p and q, and raising it pulls p towards q: -grad KL(q || p).
    p, q, _ = logits
    log_p, log_q = p.log_softmax(0), q.log_softmax(0)
    estimate = (log_p.exp().detach() * (1 - (log_q - log_p).exp())).sum()
    torch.testing.assert_close(estimate, torch.zeros_like(estimate), rtol=0, atol=1e-15)
    reverse = gradient(exact_divergences(p, q)["reverse"], p)
    torch.testing.assert_close(gradient(estimate, p), -reverse, rtol=1e-10, atol=1e-13)


def naive(estimator, log_p, log_q, log_old):
    r = math.exp(log_q) / math.exp(log_p)
    match estimator:
        case "k1":
            return log_p - log_q
        case "k2":
            return (log_p - log_q) ** 2 / 2
        case "k3" | "k2_straight_through":
            return r - 1 - math.log(r)
        case "k3_weighted":
            return math.exp(log_p) / math.exp(log_old) * (r - 1 - math.log(r))
        case "total_variation":
            return max(0.0, 1 - r)
        case "jsd":
            return (r * math.log(2 * r / (1 + r)) - math.log((1 + r) / 2)) / 2


@pytest.mark.parametrize("estimator", SAMPLED_ESTIMATORS)
def test_values_match_the_definition(estimator):
    generator = torch.Generator().manual_seed(0)
    p, q, old = -torch.rand(3, 4, 6, generator=generator, dtype=torch.float64) * 3
    got = estimate_divergence(estimator, p, q, old_logprobs=old, log_ratio_max=None)
    expected = [
        [naive(estimator, *tokens) for tokens in zip(*rows, strict=True)]
        for rows in zip(p.tolist(), q.tolist(), old.tolist(), strict=True)
    ]
    torch.testing.assert_close(
        got, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-14
    )


def one(probability):
    return torch.tensor([[probability]], dtype=torch.float64).log()


def scalar(value):
    return torch.tensor([[value]], dtype=torch.float64)


def test_golden_values_by_hand():
    # p = 1/2, q = 1/4: r = 1/2.
    p, q, none = one(0.5), one(0.25), {"log_ratio_max": None}
    torch.testing.assert_close(kl_k1(p, q, **none), scalar(math.log(2)))
    torch.testing.assert_close(kl_k2(p, q, **none), scalar(math.log(2) ** 2 / 2))
    torch.testing.assert_close(kl_k3(p, q, **none), scalar(math.log(2) - 0.5))
    torch.testing.assert_close(kl_k2_straight_through(p, q, **none), scalar(math.log(2) - 0.5))
    # old = 1/4 doubles the weight
    torch.testing.assert_close(kl_k3_weighted(p, q, one(0.25), **none), scalar(2 * math.log(2) - 1))
    torch.testing.assert_close(total_variation(p, q, **none), scalar(0.5))
    # (1/2 log(2/3) - log(3/4)) / 2
    expected = (0.5 * math.log(2 / 3) - math.log(0.75)) / 2
    torch.testing.assert_close(jensen_shannon(p, q, **none), scalar(expected))


def test_the_gradient_of_k3_explodes_where_the_masked_view_prefers_the_token():
    # d k3 / d log p = 1 - r: at most 1 for r < 1, here 1 - 100 for r = 100.
    p = one(0.001).requires_grad_()
    (grad,) = torch.autograd.grad(kl_k3(p, one(0.1), log_ratio_max=None).sum(), p)
    torch.testing.assert_close(grad, scalar(-99.0))
    (bounded,) = torch.autograd.grad(total_variation(p, one(0.1), log_ratio_max=None).sum(), p)
    torch.testing.assert_close(bounded, scalar(0.0))


def test_an_infinite_ratio_leaves_total_variation_finite():
    p, q = scalar(-2000.0).requires_grad_(), scalar(0.0).requires_grad_()
    value = total_variation(p, q, log_ratio_max=None)
    grads = torch.autograd.grad(value.sum(), (p, q))
    assert value.item() == 0.0
    assert all(torch.isfinite(grad).all() for grad in grads)


def test_a_clamped_log_ratio_has_the_bound_as_value_and_no_gradient():
    p = scalar(-30.0).requires_grad_()
    clamped = log_ratio(p, scalar(-1.0), maximum=20.0)
    assert clamped.item() == 20.0
    assert torch.autograd.grad(clamped.sum(), p)[0].item() == 0.0
    assert log_ratio(p, scalar(-1.0), maximum=None).item() == 29.0


def test_an_unknown_estimator_lists_the_known_ones():
    with pytest.raises(Exception, match="k3_weighted"):
        estimate_divergence("k4", one(0.5), one(0.5), old_logprobs=one(0.5), log_ratio_max=None)
