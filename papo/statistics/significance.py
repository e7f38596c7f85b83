"""Tests on counts of paired verdicts, and what many tests at once are worth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True, slots=True)
class SymmetryTest:
    """Bowker's test of symmetry.

    Attributes:
        statistic: chi-squared.
        degrees_of_freedom: pairs of categories between which anything moved.
        p_value: of symmetry; 1.0 where nothing moved.
    """

    statistic: float
    degrees_of_freedom: int
    p_value: float


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Returns the exact two-sided p-value of McNemar's test (McNemar 1947, Psychometrika 12).

    Args:
        only_first: items that the first run alone got right.
        only_second: items that the second alone got right.
    """
    discordant = only_first + only_second
    if discordant == 0:
        return 1.0
    return float(stats.binomtest(only_first, discordant, 0.5).pvalue)


def bowker_test(table: Sequence[Sequence[int]]) -> SymmetryTest:
    """Returns Bowker's test (1948, JASA 43:572) of whether items move between categories evenly.

    The sum over pairs i < j of (n_ij - n_ji)^2 / (n_ij + n_ji) is about chi-squared. Pairs between
    which nothing moved add nothing and are no degree of freedom. An approximation: with fewer than
    about 10 items moving between a pair, prefer `mcnemar_exact` of that pair. For two categories it
    is McNemar's test without continuity correction.

    Args:
        table: square; row i, column j counts the items of category i before and j after.

    Raises:
        ValueError: the table is not square, or holds a negative count.
    """
    counts = np.asarray(table, dtype=np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"a table of moves is square; got shape {counts.shape}")
    if (counts < 0).any():
        raise ValueError(f"a table of moves holds counts; got {counts.min():g}")
    upper = np.triu_indices(len(counts), k=1)
    moved, back = counts[upper], counts.T[upper]
    some = moved + back > 0
    statistic = float(((moved - back)[some] ** 2 / (moved + back)[some]).sum())
    degrees = int(some.sum())
    p_value = float(stats.chi2.sf(statistic, degrees)) if degrees else 1.0
    return SymmetryTest(statistic, degrees, p_value)


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Returns q-values in the order of the p-values (Benjamini and Hochberg 1995)."""
    if not p_values:
        return []
    return [float(q) for q in stats.false_discovery_control(np.asarray(p_values), method="bh")]
