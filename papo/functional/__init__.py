"""The maths: pure tensor -> tensor functions; torch alone."""

from papo.functional.advantages import group_advantages, standardised
from papo.functional.cosines import cosine_with_mean, mean_cosine
from papo.functional.credit import (
    ascending_rank,
    detrended,
    discounted_future,
    k3_dependence,
    largest_factor,
    largest_share,
    mean_one,
    min_max,
    response_means,
    robust_scores,
    shrunk_gaussians,
)
from papo.functional.disturbance import DISTURBANCES, disturbance
from papo.functional.divergence import (
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
from papo.functional.head_precision import HeadPrecision
from papo.functional.intervention import attention_change, salient_attention, values_without_picture
from papo.functional.logprobs import TokenStatistics, soft_capped, token_statistics
from papo.functional.perception import most_dependent_tokens, restricted_perception_kl
from papo.functional.reduce import sequence_mean, token_mean, zero_padding
from papo.functional.reliance import contrast_margin, evidence_gate, evidence_margin, largest_rises
from papo.functional.schedules import linear_decay
from papo.functional.surrogate import (
    clip_events,
    clipped_surrogate,
    truncated_importance,
)
from papo.functional.visual_scores import SCHEDULES, compensated, response_factors, token_factors

__all__ = [
    "DISTURBANCES",
    "SAMPLED_ESTIMATORS",
    "SCHEDULES",
    "HeadPrecision",
    "TokenStatistics",
    "ascending_rank",
    "attention_change",
    "clip_events",
    "clipped_surrogate",
    "compensated",
    "contrast_margin",
    "cosine_with_mean",
    "detrended",
    "discounted_future",
    "disturbance",
    "estimate_divergence",
    "evidence_gate",
    "evidence_margin",
    "group_advantages",
    "jensen_shannon",
    "k3_dependence",
    "kl_k1",
    "kl_k2",
    "kl_k2_straight_through",
    "kl_k3",
    "kl_k3_weighted",
    "largest_factor",
    "largest_rises",
    "largest_share",
    "linear_decay",
    "log_ratio",
    "mean_cosine",
    "mean_one",
    "min_max",
    "most_dependent_tokens",
    "response_factors",
    "response_means",
    "restricted_perception_kl",
    "robust_scores",
    "salient_attention",
    "sequence_mean",
    "shrunk_gaussians",
    "soft_capped",
    "standardised",
    "token_factors",
    "token_mean",
    "token_statistics",
    "total_variation",
    "truncated_importance",
    "values_without_picture",
    "zero_padding",
]
