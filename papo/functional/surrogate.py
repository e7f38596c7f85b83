"""The clipped policy-gradient surrogate, and which of its clips bind."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from papo.functional.divergence import log_ratio


def clipped_surrogate(
    logprobs: Float[Tensor, "rollout token"],
    old_logprobs: Float[Tensor, "rollout token"],
    advantages: Float[Tensor, "rollout token"],
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None,
    log_ratio_max: float | None,
) -> Float[Tensor, "rollout token"]:
    """-min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A) per token, rho = pi / pi_old; minimised.

    With `dual_clip` c, a negative advantage costs at most c |A| (arXiv:1912.09729). Asymmetric
    clipping: DAPO, arXiv:2503.14476.

    log rho is first clamped to +-log_ratio_max nats (official PAPO: 20; None leaves it alone).
    """
    ratio = log_ratio(old_logprobs, logprobs, maximum=log_ratio_max).exp()
    clipped_ratio = ratio.clamp(1 - clip_low, 1 + clip_high)
    loss = torch.maximum(-advantages * ratio, -advantages * clipped_ratio)
    if dual_clip is None:
        return loss
    return torch.where(advantages < 0, torch.minimum(loss, -advantages * dual_clip), loss)


def truncated_importance(
    old_logprobs: Float[Tensor, "rollout token"],
    behaviour_logprobs: Float[Tensor, "rollout token"],
    *,
    cap: float,
) -> Float[Tensor, "rollout token"]:
    """min(pi_old / mu, cap) per token, a constant: corrects a surrogate whose tokens mu drew, not pi_old.

    mu is the same policy in another program, whose rounding differs. Truncated importance sampling (Ionides
    2008, JCGS 17(2)), per token as TRL and verl have it; both log-probabilities must be over the whole
    vocabulary, or their supports differ.
    """
    return (old_logprobs - behaviour_logprobs).detach().exp().clamp(max=cap)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClipEvents:
    """Where a clip binds, so that the surrogate has no gradient (padding is not excluded).

    Attributes:
        low: A < 0 and rho < 1 - clip_low.
        high: A > 0 and rho > 1 + clip_high.
        dual: A < 0 and rho > dual_clip.
    """

    low: Bool[Tensor, "rollout token"]
    high: Bool[Tensor, "rollout token"]
    dual: Bool[Tensor, "rollout token"]


def clip_events(
    logprobs: Float[Tensor, "rollout token"],
    old_logprobs: Float[Tensor, "rollout token"],
    advantages: Float[Tensor, "rollout token"],
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None,
) -> ClipEvents:
    """Returns which tokens each clip of `clipped_surrogate` holds back.

    The official code logs low + high as `pg_clipfrac_higher` and dual as `pg_clipfrac_lower`.
    """
    ratio = (logprobs - old_logprobs).exp()
    return ClipEvents(
        low=(advantages < 0) & (ratio < 1 - clip_low),
        high=(advantages > 0) & (ratio > 1 + clip_high),
        dual=(advantages < 0) & (ratio > (torch.inf if dual_clip is None else dual_clip)),
    )
