"""Shares of trials that succeed."""

import math

from scipy import stats

from papo.statistics.interval import Interval


def wilson_interval(hits: int, trials: int, *, level: float = 0.95) -> Interval:
    """Returns a share with its Wilson score interval (Wilson 1927, JASA 22).

    Raises:
        ValueError: no trial, or more hits than trials.
    """
    if not 0 <= hits <= trials or trials < 1:
        raise ValueError(f"a share needs 0 <= hits <= trials and a trial; got {hits} of {trials}")
    found = stats.binomtest(hits, trials).proportion_ci(level, method="wilson")
    return Interval(hits / trials, float(found.low), float(found.high))


def pass_at_k(num_responses: int, num_correct: int, k: int) -> float:
    """Returns the unbiased estimate of P(at least one of k responses is right).

    1 - C(n - c, k) / C(n, k) (Chen et al., arXiv:2107.03374, equation 1).

    Raises:
        ValueError: k is not between 1 and num_responses.
    """
    if not 1 <= k <= num_responses:
        raise ValueError(
            f"pass@k needs 1 <= k <= number of responses; got k={k} of {num_responses}. "
            "Set evaluation.pass_at or rollout.num_responses."
        )
    return 1.0 - math.comb(num_responses - num_correct, k) / math.comb(num_responses, k)


def is_majority(hits: int, trials: int) -> bool:
    """Whether an item counts as right by its k responses: more than half are; a tie is wrong."""
    return 2 * hits > trials
