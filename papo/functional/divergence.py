"""Estimators of KL(p || q) and bounded relatives from the sampled token's log-probabilities alone.

Tokens are drawn from p. An estimator has a value and, differentiated, a gradient, and the two need
not belong to the same divergence (r = q/p at the sampled token; q held constant):

| estimator           | E_p[value]       | E_p[gradient with respect to p]                   |
|---------------------|------------------|---------------------------------------------------|
| k1                  | KL(p, q)         | 0                                                 |
| k2                  | about KL(p, q)   | grad KL(p, q)                                     |
| k3                  | KL(p, q)         | grad KL(q, p), the *reverse*; unbounded for r > 1 |
| k2_straight_through | KL(p, q)         | grad KL(p, q)                                     |
| k3_weighted         | KL(p, q)         | grad KL(p, q), also for tokens drawn from old     |
| total_variation     | TV(p, q) <= 1    | grad TV(p, q); at most 1 per token                |
| jsd                 | JSD(p, q) <= log 2 | grad JSD(p, q); at most (log 2) / 2 upwards     |

With respect to a live q, all but k2 give the gradient of their expected value. `1 - q/p` itself is
no loss: its mean is 0 for any p and q, and its gradient pulls p towards q; total_variation is its
positive part. The exact KL over the vocabulary is `token_statistics(...).perception_kl`.
"""

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

SampledEstimator = Literal[
    "k1", "k2", "k3", "k2_straight_through", "k3_weighted", "total_variation", "jsd"
]
SAMPLED_ESTIMATORS: tuple[str, ...] = get_args(SampledEstimator)

LogProbs = Float[Tensor, "rollout token"]


def log_ratio(
    p_logprobs: LogProbs, q_logprobs: LogProbs, *, maximum: float | None
) -> Float[Tensor, "rollout token"]:
    """log(q/p), clamped to +-maximum nats (no gradient outside) unless `maximum` is None."""
    difference = q_logprobs - p_logprobs
    return difference if maximum is None else difference.clamp(-maximum, maximum)


def kl_k1(
    p_logprobs: LogProbs, q_logprobs: LogProbs, *, log_ratio_max: float | None
) -> Float[Tensor, "rollout token"]:
    """k1 = -log r: unbiased, either sign, and no expected gradient towards p.

    http://joschu.net/blog/kl-approx.html
    """
    return -log_ratio(p_logprobs, q_logprobs, maximum=log_ratio_max)


def kl_k2(
    p_logprobs: LogProbs, q_logprobs: LogProbs, *, log_ratio_max: float | None
) -> Float[Tensor, "rollout token"]:
    """k2 = (log r)^2 / 2: biased value, but its expected gradient towards p is KL(p || q)'s."""
    return log_ratio(p_logprobs, q_logprobs, maximum=log_ratio_max).square() / 2


def kl_k3(
    p_logprobs: LogProbs, q_logprobs: LogProbs, *, log_ratio_max: float | None
) -> Float[Tensor, "rollout token"]:
    """k3 = r - 1 - log r: never negative, unbiased for tokens drawn from p.

    GRPO uses it for KL(pi_theta || pi_ref) (DeepSeekMath, arXiv:2402.03300v3), PAPO for both of its
    KL terms. Differentiated it gives (1 - r) grad log p, in expectation the gradient of KL(q || p).
    """
    ratio = log_ratio(p_logprobs, q_logprobs, maximum=log_ratio_max)
    # Not expm1: in float32 it rounds differently from the official code, beyond the 1e-9 of parity.
    return ratio.exp() - ratio - 1


def kl_k3_weighted(
    p_logprobs: LogProbs,
    q_logprobs: LogProbs,
    old_logprobs: LogProbs,
    *,
    log_ratio_max: float | None,
) -> Float[Tensor, "rollout token"]:
    """(p/old) k3, the importance weight differentiated too: value and gradient of KL(p || q).

    Correct for tokens drawn from `old`, so for every update of a rollout, not the first alone.
    """
    weight = log_ratio(old_logprobs, p_logprobs, maximum=log_ratio_max).exp()
    return weight * kl_k3(p_logprobs, q_logprobs, log_ratio_max=log_ratio_max)


def kl_k2_straight_through(
    p_logprobs: LogProbs, q_logprobs: LogProbs, *, log_ratio_max: float | None
) -> Float[Tensor, "rollout token"]:
    """The value of k3 with k2's gradient towards p and k1's towards q: both those of KL(p || q)."""
    ratio = log_ratio(p_logprobs, q_logprobs, maximum=log_ratio_max).detach()
    value = ratio.exp() - ratio - 1
    return _with_gradient(value, p_logprobs, -ratio, q_logprobs, -torch.ones_like(ratio))


def total_variation(
    p_logprobs: LogProbs, q_logprobs: LogProbs, *, log_ratio_max: float | None
) -> Float[Tensor, "rollout token"]:
    """max(0, 1 - r), whose mean is TV(p, q) <= 1, with the gradient of that mean.

    grad_p E_p[max(0, 1 - r)] = E_p[1[r < 1] grad log p]: bounded where k3 explodes (r > 1).
    """
    ratio = log_ratio(p_logprobs, q_logprobs, maximum=log_ratio_max).detach().exp()
    seen = ratio < 1
    # Selected, not multiplied: r may be infinite where it does not count.
    towards_q = -ratio.where(seen, 0.0)
    value = (1 - ratio).clamp(min=0)
    return _with_gradient(value, p_logprobs, seen.to(ratio.dtype), q_logprobs, towards_q)


def jensen_shannon(
    p_logprobs: LogProbs, q_logprobs: LogProbs, *, log_ratio_max: float | None
) -> Float[Tensor, "rollout token"]:
    """f(r) = (r log(2r/(1+r)) - log((1+r)/2)) / 2, whose mean is JSD(p, q) <= log 2, with its gradient.

    Towards p the coefficient f - r f' = -log((1+r)/2) / 2 grows only like log r where k3's grows
    like r; towards q it is r f' = r log(2r/(1+r)) / 2.
    """
    log_r = log_ratio(p_logprobs, q_logprobs, maximum=log_ratio_max).detach()
    log_mixture = torch.logaddexp(log_r, torch.zeros_like(log_r)) - math.log(2)  # log (1+r)/2
    towards_q = log_r.exp() * (log_r - log_mixture) / 2
    towards_p = -log_mixture / 2
    return _with_gradient(towards_q + towards_p, p_logprobs, towards_p, q_logprobs, towards_q)


def estimate_divergence(
    estimator: SampledEstimator,
    p_logprobs: LogProbs,
    q_logprobs: LogProbs,
    *,
    old_logprobs: LogProbs,
    log_ratio_max: float | None,
) -> Float[Tensor, "rollout token"]:
    """Returns the named estimator per token (see the table above), nats; >= 0 for all but k1.

    Args:
        estimator: a name from the table.
        p_logprobs: log p of the sampled tokens.
        q_logprobs: log q of the same tokens.
        old_logprobs: log-probabilities under the policy that drew them (k3_weighted reads it).
        log_ratio_max: clamp log(q/p) to this many nats; None leaves it alone (official PAPO: 20).

    Raises:
        ValueError: the estimator is unknown.
    """
    match estimator:
        case "k1":
            return kl_k1(p_logprobs, q_logprobs, log_ratio_max=log_ratio_max)
        case "k2":
            return kl_k2(p_logprobs, q_logprobs, log_ratio_max=log_ratio_max)
        case "k3":
            return kl_k3(p_logprobs, q_logprobs, log_ratio_max=log_ratio_max)
        case "k2_straight_through":
            return kl_k2_straight_through(p_logprobs, q_logprobs, log_ratio_max=log_ratio_max)
        case "k3_weighted":
            return kl_k3_weighted(p_logprobs, q_logprobs, old_logprobs, log_ratio_max=log_ratio_max)
        case "total_variation":
            return total_variation(p_logprobs, q_logprobs, log_ratio_max=log_ratio_max)
        case "jsd":
            return jensen_shannon(p_logprobs, q_logprobs, log_ratio_max=log_ratio_max)
    raise ValueError(
        f"unknown estimator {estimator!r}; choose one of {', '.join(SAMPLED_ESTIMATORS)}"
    )


def _with_gradient(
    value: LogProbs,
    p_logprobs: LogProbs,
    towards_p: LogProbs,
    q_logprobs: LogProbs,
    towards_q: LogProbs,
) -> Float[Tensor, "rollout token"]:
    """`value` without its own gradient, plus the stated coefficients on grad log p and grad log q."""
    p_step = towards_p * (p_logprobs - p_logprobs.detach())
    q_step = towards_q * (q_logprobs - q_logprobs.detach())
    return value + p_step + q_step
