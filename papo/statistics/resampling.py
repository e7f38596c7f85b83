"""The bootstrap over items: means, paired differences, ratios (Efron and Tibshirani 1993).

Resampling cannot draw a kind of item that the sample lacks, so it finds a few items certain, and any number
that agree. Where five or fewer differ from the commonest value (of a ratio: in what they add to it), an
interval is never narrower than `unseen_share` leaves open: that so many items are of the kind that moves
the estimate most. For items that are all 0 or all 1 this is Clopper and Pearson's interval.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence

import numpy as np

from papo.statistics.interval import Difference, Interval
from papo.statistics.unseen import open_share, reaching, together, unseen_means, unseen_ratio

RESAMPLES = 10_000
# Resampled indices held at a time; bounds memory, not the result.
_INDICES_AT_ONCE = 4_000_000


def bootstrap_mean(per_item: Sequence[float], *, seed: int, level: float = 0.95) -> Interval:
    """Returns the mean of shares over items with its percentile bootstrap interval (items are resampled).

    Within [0, 1], and as wide as so few items leave open.

    Args:
        per_item: one share per item, between 0 and 1: e.g. of its k responses, those that are right.
        seed: of the resampling.
        level: of the interval.

    Raises:
        ValueError: there is no item, or a number is not between 0 and 1.
    """
    values = _within(per_item, (0.0, 1.0))
    found = _percentile(float(values.mean()), _resampled_means(values, seed), level)
    unseen = open_share(values, level=level)
    return reaching(found, *unseen_means(found.value, unseen, (0.0, 1.0))).within((0.0, 1.0))


def bootstrap_mean_of_means(
    groups: Sequence[Sequence[float]],
    *,
    names: Sequence[Sequence[Hashable]] | None = None,
    seed: int,
    level: float = 0.95,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    """Returns the unweighted mean of the groups' means; items are resampled within each group.

    The interval of an average over benchmarks: the benchmarks are fixed, their items are a sample.
    Groups are resampled independently of one another, but for items of one name: these are one item,
    drawn into all of its groups at once. So items are resampled within each set of groups that they
    belong to. What groups of few items leave open is added (`together`).

    Args:
        groups: of each group a number per item.
        names: of each group a name per item, where groups may share items; None where none do.
        seed: of the resampling.
        level: of the interval.
        bounds: of the numbers; (-1, 1) for differences of shares.

    Raises:
        ValueError: there is no group, a group is empty, names and items differ in number, or a number
            is out of its bounds.
    """
    if not groups:
        raise ValueError("a mean of means needs at least one group; got none")
    values = [_within(group, bounds) for group in groups]
    if names is None:
        names = [
            [(index, item) for item in range(len(group))] for index, group in enumerate(groups)
        ]
    # The mean of means is a sum over items: each adds what it weighs in all of its groups.
    contributions: dict[Hashable, float] = defaultdict(float)
    memberships: dict[Hashable, list[int]] = defaultdict(list)
    for index, (group, own) in enumerate(zip(values, names, strict=True)):
        seen: Counter[Hashable] = Counter()
        for value, name in zip(group.tolist(), own, strict=True):
            item = (name, seen[name])  # an item that a group holds twice is two
            seen[name] += 1
            contributions[item] += value / (len(groups) * len(group))
            memberships[item].append(index)
    strata: dict[tuple[int, ...], list[float]] = defaultdict(list)
    for key, members in memberships.items():
        strata[tuple(members)].append(contributions[key])
    resampled = np.sum(
        [
            len(items) * _resampled_means(_finite(items), seed + 7919 * index)
            for index, items in enumerate(strata.values())
        ],
        axis=0,
    )
    means = [float(group.mean()) for group in values]
    found = _percentile(float(np.mean(means)), resampled, level)
    unseen = [
        unseen_means(mean, open_share(group, level=level), bounds)
        for mean, group in zip(means, values, strict=True)
    ]
    return reaching(
        found, *together(means, unseen, independent=all(len(own) == 1 for own in strata))
    ).within(bounds)


def paired_bootstrap(
    first: Sequence[float], second: Sequence[float], *, seed: int, level: float = 0.95
) -> Difference:
    """Returns mean(second - first) of shares of the same items, with interval and p-value.

    The p-value is two-sided with one added to both counts (Davison and Hinkley 1997, section 4.2), so
    that it is never 0. Nor is it below 2 ** (1 - m) where only m items differ, which no test of signs
    could go below: resampling three items that agree would otherwise "prove" anything. The interval is
    within [-1, 1], as wide as so few items leave open, and holds 0 where the p-value is above 1 - level.

    Raises:
        ValueError: the sequences differ in length or are empty, or a number is not between 0 and 1.
    """
    before, after = _paired(first, second)
    differences = _within(after, (0.0, 1.0)) - _within(before, (0.0, 1.0))
    resampled = _resampled_means(differences, seed)
    below, above = int((resampled <= 0).sum()), int((resampled >= 0).sum())
    p_value = 2.0 * (min(below, above) + 1) / (len(resampled) + 1)
    smallest = 2.0 ** (1 - int(np.count_nonzero(differences)))
    p_value = min(1.0, max(p_value, smallest))
    found = _percentile(float(differences.mean()), resampled, level)
    unseen = open_share(differences, level=level)
    found = reaching(found, *unseen_means(found.value, unseen, (-1.0, 1.0)))
    if p_value > 1.0 - level:
        found = reaching(found, 0.0, 0.0)
    return Difference(found.within((-1.0, 1.0)), p_value)


def bootstrap_ratio(
    numerators: Sequence[float],
    denominators: Sequence[float],
    *,
    seed: int,
    level: float = 0.95,
    extremes: tuple[tuple[float, float], tuple[float, float]] = ((0.0, 1.0), (1.0, 0.0)),
) -> Interval:
    """Returns mean(numerators) / mean(denominators) over the same items, which are resampled together.

    Resamples whose denominators are all 0 have no ratio and are left out. The interval is as wide as so
    few items leave open.

    Args:
        numerators: one number per item.
        denominators: of the same items.
        seed: of the resampling.
        level: of the interval.
        extremes: the numerator and denominator of an item that would lower the ratio most, and of one
            that would raise it most; as given for two shares that know nothing of one another.

    Raises:
        ValueError: the sequences differ in length or are empty, or the denominators add up to 0.
    """
    above, below = _paired(numerators, denominators)
    _require_positive(below)
    means = [
        (above[rows].mean(axis=1), below[rows].mean(axis=1))
        for rows in _resampled_items(len(above), seed)
    ]
    tops, bottoms = (np.concatenate(part) for part in zip(*means, strict=True))
    top, bottom = float(above.mean()), float(below.mean())
    found = _percentile(top / bottom, _ratios(tops, bottoms), level)
    unseen = open_share(above - top / bottom * below, level=level)
    return reaching(found, *(unseen_ratio(top, bottom, unseen, item) for item in extremes))


def mean_relative_gain(
    first: Sequence[Sequence[float]],
    second: Sequence[Sequence[float]],
    *,
    names: Sequence[Sequence[Hashable]] | None = None,
    seed: int,
    level: float = 0.95,
) -> Interval:
    """Returns the unweighted mean over groups of mean(second) / mean(first) - 1 (0.05 = 5 % more).

    How arXiv:2507.06448v5, Table 1, averages the gains of its columns. Items are resampled as in
    `bootstrap_mean_of_means`, both runs together; resamples in which a group's first mean is 0 are
    left out.

    Args:
        first: per group one share per item.
        second: of the other run, the same items in the same order.
        names: of each group a name per item, where groups may share items; None where none do.
        seed: of the resampling.
        level: of the interval.

    Raises:
        ValueError: there is no group; groups, items or names differ in number; or one of `first` adds
            up to 0.
    """
    if not first or len(first) != len(second):
        raise ValueError(
            f"a mean gain needs the same groups twice; got {len(first)} and {len(second)}"
        )
    pairs = [_paired(before, after) for before, after in zip(first, second, strict=True)]
    for before, _ in pairs:
        _require_positive(before)
    gains = [after.mean() / before.mean() - 1.0 for before, after in pairs]
    # Sums instead of means: the number of a group's items cancels, as every resample has as many.
    bottoms, tops = np.zeros((2, len(pairs), RESAMPLES))
    strata = _strata([len(before) for before, _ in pairs], names)
    for index, (members, places) in enumerate(strata.items()):
        start = 0
        for rows in _resampled_items(len(places), seed + 7919 * index):
            stop = start + len(rows)
            for group, own in zip(members, np.array(places).T, strict=True):
                before, after = pairs[group]
                bottoms[group, start:stop] += before[own][rows].sum(axis=1)
                tops[group, start:stop] += after[own][rows].sum(axis=1)
            start = stop
    defined = (bottoms > 0).all(axis=0)
    resampled = (tops[:, defined] / bottoms[:, defined] - 1.0).mean(axis=0)
    unseen = [_unseen_gain(before, after, level) for before, after in pairs]
    found = _percentile(float(np.mean(gains)), resampled, level)
    return reaching(
        found,
        *together(
            [float(gain) for gain in gains],
            unseen,
            independent=all(len(own) == 1 for own in strata),
        ),
    )


def _unseen_gain(before: np.ndarray, after: np.ndarray, level: float) -> tuple[float, ...]:
    """The ends of mean(after) / mean(before) - 1 that items which were not drawn leave open."""
    top, bottom = float(after.mean()), float(before.mean())
    unseen = open_share(after - top / bottom * before, level=level)
    return tuple(unseen_ratio(top, bottom, unseen, item) - 1.0 for item in ((0.0, 1.0), (1.0, 0.0)))


def _strata(
    sizes: Sequence[int], names: Sequence[Sequence[Hashable]] | None
) -> dict[tuple[int, ...], list[list[int]]]:
    """Per set of groups the items that belong to just these: their place in each of them."""
    if names is None:
        return {(group,): [[place] for place in range(size)] for group, size in enumerate(sizes)}
    places: dict[Hashable, dict[int, int]] = defaultdict(dict)
    for group, (size, own) in enumerate(zip(sizes, names, strict=True)):
        seen: Counter[Hashable] = Counter()
        for place, name in zip(range(size), own, strict=True):
            # An item that a group holds twice is two.
            places[name, seen[name]][group] = place
            seen[name] += 1
    strata: dict[tuple[int, ...], list[list[int]]] = defaultdict(list)
    for where in places.values():
        strata[tuple(where)].append(list(where.values()))
    return strata


def relative_reduction(
    first: Sequence[float],
    second: Sequence[float],
    *,
    paired: bool,
    seed: int,
    level: float = 0.95,
) -> Interval:
    """Returns 1 - mean(second) / mean(first), e.g. how much rarer an error became (0.305 = 30.5 %).

    As wide as so few items, or so few errors, leave open: "100 % fewer" is never certain.

    Args:
        first: one share per item, e.g. 1.0 where the error occurred.
        second: of the other run; the same items in the same order where `paired`.
        paired: whether items are resampled together; else each run's on its own.
        seed: of the resampling.
        level: of the interval.

    Raises:
        ValueError: `first` adds up to 0 (nothing to reduce), or, where paired, the lengths differ.
    """
    if paired:
        ratio = bootstrap_ratio(second, first, seed=seed, level=level)
        return Interval(1.0 - ratio.value, 1.0 - ratio.high, 1.0 - ratio.low)
    before, after = _finite(first), _finite(second)
    _require_positive(before)
    bottoms, tops = _resampled_means(before, seed), _resampled_means(after, seed + 7919)
    bottom, top = float(before.mean()), float(after.mean())
    tops_end, bottoms_end = (
        unseen_means(mean, open_share(values, level=level), (0.0, 1.0))
        for mean, values in ((top, after), (bottom, before))
    )
    found = _percentile(1.0 - top / bottom, 1.0 - _ratios(tops, bottoms), level)
    # One of the two may have left a kind of item unseen; both at once is beyond the level.
    return reaching(
        found,
        1.0 - max(tops_end[1] / bottom, top / bottoms_end[0]),
        1.0 - min(tops_end[0] / bottom, top / bottoms_end[1]),
    )


def _finite(values: Sequence[float] | np.ndarray) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError("a mean needs at least one item; got none")
    if not np.isfinite(array).all():
        raise ValueError("a mean needs finite numbers; got nan or infinity")
    return array


def _paired(first: Sequence[float], second: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    if len(first) != len(second):
        raise ValueError(
            f"a paired comparison needs the same items twice; got {len(first)} and {len(second)}"
        )
    return _finite(first), _finite(second)


def _require_positive(denominators: np.ndarray) -> None:
    if not denominators.mean() > 0:
        raise ValueError(
            "a ratio needs a positive mean to divide by; got "
            f"{denominators.mean():g} over {len(denominators)} items"
        )


def _ratios(tops: np.ndarray, bottoms: np.ndarray) -> np.ndarray:
    defined = bottoms > 0
    return tops[defined] / bottoms[defined]


def _within(values: Sequence[float] | np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    array = _finite(values)
    # Sums of shares may leave their bounds by rounding.
    if array.min() < bounds[0] - 1e-9 or array.max() > bounds[1] + 1e-9:
        raise ValueError(
            f"numbers between {bounds[0]:g} and {bounds[1]:g} are resampled; got "
            f"{array.min():g} to {array.max():g}"
        )
    return array.clip(*bounds)


def _resampled_items(num_items: int, seed: int) -> Iterator[np.ndarray]:
    """Indices of items drawn with replacement: RESAMPLES rows in all, some at a time."""
    generator = np.random.default_rng(seed)
    at_once = max(1, _INDICES_AT_ONCE // num_items)
    for start in range(0, RESAMPLES, at_once):
        yield generator.integers(num_items, size=(min(at_once, RESAMPLES - start), num_items))


def _resampled_means(values: np.ndarray, seed: int) -> np.ndarray:
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) * 8 <= len(values):
        # Items of equal value are interchangeable: how often each value is drawn is multinomial.
        # The same distribution, and a share of k responses has at most k + 1 values.
        drawn = np.random.default_rng(seed).multinomial(
            len(values), counts / len(values), size=RESAMPLES
        )
        return drawn @ distinct / len(values)
    return np.concatenate(
        [values[rows].mean(axis=1) for rows in _resampled_items(len(values), seed)]
    )


def _percentile(value: float, resampled: np.ndarray, level: float) -> Interval:
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(resampled, [tail, 1.0 - tail])
    return Interval(value, float(low), float(high))
