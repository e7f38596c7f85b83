"""The maths: pure tensor -> tensor functions; torch alone."""

from papo.functional.advantages import group_advantages
from papo.functional.credit import k3_dependence, largest_share, response_means
from papo.functional.divergence import (
    SAMPLED_ESTIMATORS,
    SampledEstimator,
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
from papo.functional.logprobs import TokenStatistics, token_statistics
from papo.functional.perception import (
    most_dependent_tokens,
    restricted_perception_kl,
)
from papo.functional.reduce import sequence_mean, token_mean, zero_padding
from papo.functional.schedules import linear_decay
from papo.functional.surrogate import (
    ClipEvents,
    clip_events,
    clipped_surrogate,
    truncated_importance,
)

__all__ = [
    "SAMPLED_ESTIMATORS",
    "ClipEvents",
    "HeadPrecision",
    "SampledEstimator",
    "TokenStatistics",
    "clip_events",
    "clipped_surrogate",
    "estimate_divergence",
    "group_advantages",
    "jensen_shannon",
    "k3_dependence",
    "kl_k1",
    "kl_k2",
    "kl_k2_straight_through",
    "kl_k3",
    "kl_k3_weighted",
    "largest_share",
    "linear_decay",
    "log_ratio",
    "most_dependent_tokens",
    "response_means",
    "restricted_perception_kl",
    "sequence_mean",
    "token_mean",
    "token_statistics",
    "total_variation",
    "truncated_importance",
    "zero_padding",
]
