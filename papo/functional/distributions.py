"""Full-vocabulary quantities that nothing is differentiated through: what credits read of a rollout."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

NUCLEUS_MASS = 0.95
"""The share of the probability that a nucleus holds (ToR, arXiv:2603.25077)."""


def entropy(log_p: Float[Tensor, "row vocab"]) -> Float[Tensor, " row"]:
    """H[p], nats; a token at -inf adds 0."""
    return -torch.xlogy(p := log_p.exp(), p).sum(-1)


def kl_divergence(
    log_p: Float[Tensor, "row vocab"], log_q: Float[Tensor, "row vocab"]
) -> Float[Tensor, " row"]:
    """KL(p || q), nats; tokens that p never draws add 0."""
    p = log_p.exp()
    return (p * (log_p - log_q)).where(p > 0, 0.0).sum(-1)


def jensen_shannon_divergence(
    log_p: Float[Tensor, "row vocab"], log_q: Float[Tensor, "row vocab"]
) -> Float[Tensor, " row"]:
    """(KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2, nats, at most log 2."""
    log_mixture = torch.logaddexp(log_p, log_q) - math.log(2)
    halves = kl_divergence(log_p, log_mixture) + kl_divergence(log_q, log_mixture)
    return (halves / 2).clamp_min(0.0)


def nucleus_entropy(
    log_p: Float[Tensor, "row vocab"], *, mass: float = NUCLEUS_MASS
) -> Float[Tensor, " row"]:
    """Entropy of the smallest set of likeliest tokens that has `mass` of the probability, renormalised; nats."""
    ordered = log_p.exp().sort(dim=-1, descending=True).values
    before = ordered.cumsum(-1) - ordered
    kept = ordered.where(before < mass, 0.0)
    kept = kept / kept.sum(-1, keepdim=True)
    return -torch.xlogy(kept, kept).sum(-1)
