"""How often a noisy number must be measured until items can be told apart by it, and how well it tells them apart."""

import math
from collections.abc import Sequence

import numpy as np

RELIABLE = 0.9
"""Of the variance between items' means, the part that is the items' own."""


def repeats_needed(
    per_item: Sequence[Sequence[float]], *, reliability: float = RELIABLE
) -> int | None:
    """Returns how many repeats an item's mean needs to have a reliability of at least `reliability`.

    One-way random effects (Shrout and Fleiss 1979) and the Spearman-Brown formula: with a variance B between items and
    W within, the mean of k repeats has B / (B + W / k), so k = W / B * reliability / (1 - reliability), rounded up.

    Args:
        per_item: the repeats of each item, at least two of each, equally many.
        reliability: above 0, below 1.

    Returns:
        At least 1; None with fewer than two items, and where items do not differ by more than their repeats do.
    """
    values = np.asarray(per_item, dtype=np.float64)
    if len(values) < 2:
        return None
    within = float(values.var(axis=1, ddof=1).mean())
    between = float(values.mean(axis=1).var(ddof=1)) - within / values.shape[1]
    # Rounding alone is no difference.
    if not between > 1e-12 * float(np.square(values).mean()):
        return None
    return max(1, math.ceil(within / between * reliability / (1 - reliability) - 1e-9))
