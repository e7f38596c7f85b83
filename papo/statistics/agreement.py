"""How far two raters agree beyond chance."""

from collections.abc import Hashable, Sequence

import numpy as np

from papo.statistics.interval import Interval
from papo.statistics.resampling import RESAMPLES
from papo.statistics.unseen import open_share, reaching


def cohen_kappa(
    first: Sequence[Hashable], second: Sequence[Hashable], *, seed: int, level: float = 0.95
) -> Interval:
    """Returns Cohen's kappa (1960, Educational and Psychological Measurement 20) of two raters.

    (p_o - p_e) / (1 - p_e), with p_o the share of items they agree on and p_e the share that their
    own frequencies of labels would give by chance: 1 is agreement, 0 chance. The interval is a
    percentile bootstrap over items; resamples with a single label have no kappa and are left out. Where
    the raters agree on nearly all items, or on nearly none, it is as wide as items with another pair of
    labels would make it that these happen not to show (`unseen_share`).

    Args:
        first: one label per item.
        second: the other rater's, in the same order.
        seed: of the resampling.
        level: of the interval.

    Raises:
        ValueError: the raters labelled different numbers of items, none, or used a single label.
    """
    if len(first) != len(second) or not first:
        raise ValueError(
            "agreement needs two labels of each item and at least one item; got "
            f"{len(first)} and {len(second)} labels"
        )
    codes = {label: code for code, label in enumerate(dict.fromkeys([*first, *second]))}
    if len(codes) == 1:
        raise ValueError(
            f"kappa needs at least two labels in use; both raters said {first[0]!r} of every item"
        )
    table = np.zeros((len(codes), len(codes)))
    for one, other in zip(first, second, strict=True):
        table[codes[one], codes[other]] += 1
    num_items = len(first)
    # Items of one cell are interchangeable, so how often each cell is drawn is multinomial.
    drawn = np.random.default_rng(seed).multinomial(
        num_items, table.ravel() / num_items, size=RESAMPLES
    )
    resampled = _kappas(drawn.reshape(-1, *table.shape))
    tail = (1.0 - level) / 2.0
    low, high = np.nanquantile(resampled, [tail, 1.0 - tail])
    agree = np.array([one == other for one, other in zip(first, second, strict=True)], dtype=float)
    unseen = open_share(agree, level=level)
    pairs = np.eye(table.size).reshape(-1, *table.shape)
    others = _kappas((1.0 - unseen) * table / num_items + unseen * pairs)
    found = Interval(float(_kappas(table[None])[0]), float(low), float(high))
    return reaching(found, float(np.nanmin(others)), float(np.nanmax(others))).within((-1.0, 1.0))


def _kappas(tables: np.ndarray) -> np.ndarray:
    """Kappa of each table; nan where only one label is in use."""
    shares = tables / tables.sum(axis=(1, 2), keepdims=True)
    observed = np.trace(shares, axis1=1, axis2=2)
    expected = (shares.sum(axis=1) * shares.sum(axis=2)).sum(axis=1)
    # Rounding leaves 1 - expected at about 1e-16 where it is 0.
    chance_only = expected > 1.0 - 1e-12
    return np.where(
        chance_only, np.nan, (observed - expected) / np.where(chance_only, 1.0, 1.0 - expected)
    )
