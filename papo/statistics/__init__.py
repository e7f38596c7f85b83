"""Intervals and tests for shares, paired differences and agreement.

Every function that draws takes a seed and is a fixed function of its arguments. Shares are between
0 and 1; intervals are 95 % unless `level` says otherwise.
"""

from papo.statistics.agreement import cohen_kappa
from papo.statistics.interval import Difference, Interval
from papo.statistics.resampling import (
    bootstrap_mean,
    bootstrap_mean_of_means,
    bootstrap_ratio,
    mean_relative_gain,
    paired_bootstrap,
    relative_reduction,
)
from papo.statistics.seeds import (
    detectable_over_starts,
    detectable_within_starts,
    minimum_detectable_difference,
    paired_t,
    paired_t_over_starts,
    paired_t_within_starts,
    t_interval,
)
from papo.statistics.shares import is_majority, pass_at_k, wilson_interval
from papo.statistics.significance import benjamini_hochberg, bowker_test, mcnemar_exact

__all__ = [
    "Difference",
    "Interval",
    "benjamini_hochberg",
    "bootstrap_mean",
    "bootstrap_mean_of_means",
    "bootstrap_ratio",
    "bowker_test",
    "cohen_kappa",
    "detectable_over_starts",
    "detectable_within_starts",
    "is_majority",
    "mcnemar_exact",
    "mean_relative_gain",
    "minimum_detectable_difference",
    "paired_bootstrap",
    "paired_t",
    "paired_t_over_starts",
    "paired_t_within_starts",
    "pass_at_k",
    "relative_reduction",
    "t_interval",
    "wilson_interval",
]
