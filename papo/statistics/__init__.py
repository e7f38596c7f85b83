"""Intervals and tests for shares, paired differences and agreement, and the rule of a collapse: the only place.

Every function that draws takes a seed and is a fixed function of its arguments. Shares are between
0 and 1, and so are the ends of their intervals; intervals are 95 % unless `level` says otherwise. No
interval is a point. Which one a number gets depends on what it is:

* a count of independent trials (cases, problems, runs): Wilson's (`wilson_interval`);
* a mean over problems of shares (accuracy, avg@k, pass@k, categories of error), their differences and
  ratios: the bootstrap over problems, as wide as a few problems leave open (`unseen_share`);
* one number per seed or start: Student's t (`t_interval`, `paired_t`), None for a single number and where
  all agree;
* numbers of items that are no shares (seconds, nats): Student's t as well.
"""

from papo.statistics.agreement import cohen_kappa
from papo.statistics.association import area_under_curve, pearson, spearman
from papo.statistics.collapse import (
    ACCURACY_COLUMNS,
    COLLAPSE_RULE,
    FALL,
    LOST_FORM,
    PERCEPTION_KL,
    SOUND_FALL,
    SOUND_LOST_FORM,
    SOUND_PERCEPTION_KL,
    Collapse,
    badly_formatted,
    judge_collapse,
    judged_columns,
)
from papo.statistics.double_sampling import Checks, double_sampling
from papo.statistics.interval import Difference, Interval, MeanDifference
from papo.statistics.reliability import repeats_needed
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
    ratio_of_means,
    t_interval,
)
from papo.statistics.shares import is_majority, pass_at_k, wilson_interval
from papo.statistics.significance import benjamini_hochberg, bowker_test, mcnemar_exact
from papo.statistics.term_gradients import (
    TERM_RULE,
    TermGradient,
    first_median_last,
    judge_terms,
)
from papo.statistics.unseen import unseen_share

__all__ = [
    "ACCURACY_COLUMNS",
    "COLLAPSE_RULE",
    "FALL",
    "LOST_FORM",
    "PERCEPTION_KL",
    "SOUND_FALL",
    "SOUND_LOST_FORM",
    "SOUND_PERCEPTION_KL",
    "TERM_RULE",
    "Checks",
    "Collapse",
    "Difference",
    "Interval",
    "MeanDifference",
    "TermGradient",
    "area_under_curve",
    "badly_formatted",
    "benjamini_hochberg",
    "bootstrap_mean",
    "bootstrap_mean_of_means",
    "bootstrap_ratio",
    "bowker_test",
    "cohen_kappa",
    "detectable_over_starts",
    "detectable_within_starts",
    "double_sampling",
    "first_median_last",
    "is_majority",
    "judge_collapse",
    "judge_terms",
    "judged_columns",
    "mcnemar_exact",
    "mean_relative_gain",
    "minimum_detectable_difference",
    "paired_bootstrap",
    "paired_t",
    "paired_t_over_starts",
    "paired_t_within_starts",
    "pass_at_k",
    "pearson",
    "ratio_of_means",
    "relative_reduction",
    "repeats_needed",
    "spearman",
    "t_interval",
    "unseen_share",
    "wilson_interval",
]
