"""Which rank trains which group: dealt by length once the responses are known, the same on every rank."""

from collections.abc import Sequence

_HALVINGS = 12
"""Of the gap between the least load that is possible and the one found."""


def deal(
    costs: Sequence[int], *, ranks: int, groups_per_minibatch: int, most_per_rank: int | None
) -> list[int]:
    """Returns the rank of the group at each place of a rollout.

    Every minibatch is dealt by itself: the costliest group first, each to the rank that has least of that
    minibatch yet (Graham's LPT rule, 1969: the busiest rank has at most 4/3 of the best possible load), and then
    packed tighter where that can be (MULTIFIT: Coffman, Garey and Johnson, 1978). Which rank is busiest changes
    from minibatch to minibatch.

    Args:
        costs: of each group, e.g. its tokens.
        ranks: how many there are.
        groups_per_minibatch: consecutive places that an optimiser step is computed from.
        most_per_rank: groups that a rank may have of one minibatch; None where only costs count.

    Raises:
        ValueError: the ranks may not take all groups of a minibatch.
    """
    if most_per_rank is not None and most_per_rank * ranks < groups_per_minibatch:
        raise ValueError(
            f"{ranks} ranks with at most {most_per_rank} groups each cannot take the {groups_per_minibatch} "
            "of a minibatch"
        )
    owners: list[int] = []
    for turn, start in enumerate(range(0, len(costs), groups_per_minibatch)):
        part = costs[start : start + groups_per_minibatch]
        most = len(part) if most_per_rank is None else most_per_rank
        dealt = _packed(part, _spread(part, ranks, most), ranks, most)
        owners += [(rank + turn) % ranks for rank in dealt]
    return owners


def _costliest_first(costs: Sequence[int]) -> list[int]:
    return sorted(range(len(costs)), key=lambda place: (-costs[place], place))


def _spread(costs: Sequence[int], ranks: int, most: int) -> list[int]:
    """Each group to the rank that has least."""
    owners, loads, counts = [0] * len(costs), [0] * ranks, [0] * ranks
    for place in _costliest_first(costs):
        free = (rank for rank in range(ranks) if counts[rank] < most)
        rank = min(free, key=lambda rank: (loads[rank], counts[rank], rank))
        owners[place] = rank
        loads[rank] += costs[place]
        counts[rank] += 1
    return owners


def _packed(costs: Sequence[int], owners: list[int], ranks: int, most: int) -> list[int]:
    """The same groups with a lower largest load, as far as a search for the load finds one."""
    low = max(-(-sum(costs) // ranks), max(costs))
    high = max(_loads(costs, owners, ranks))
    for _ in range(_HALVINGS):
        if low >= high:
            break
        room = (low + high) // 2
        fitting = _fitting(costs, room, ranks, most)
        if fitting is None:
            low = room + 1
        else:
            owners, high = fitting, max(_loads(costs, fitting, ranks))
    return owners


def _fitting(costs: Sequence[int], room: int, ranks: int, most: int) -> list[int] | None:
    """Each group to the fullest rank that has room for it; None where one fits nowhere."""
    owners, loads, counts = [0] * len(costs), [0] * ranks, [0] * ranks
    for place in _costliest_first(costs):
        cost = costs[place]
        free = [r for r in range(ranks) if loads[r] + cost <= room and counts[r] < most]
        if not free:
            return None
        rank = max(free, key=lambda rank: (loads[rank], -rank))
        owners[place] = rank
        loads[rank] += cost
        counts[rank] += 1
    for idle in range(min(ranks, len(costs))):
        if counts[idle] == 0:
            # Ranks were filled from the first on; each of the others takes a group from the busiest.
            giver = max(range(ranks), key=lambda rank: (counts[rank] > 1, loads[rank], -rank))
            place = min(
                (place for place, owner in enumerate(owners) if owner == giver),
                key=lambda place: (costs[place], place),
            )
            for rank, change in ((giver, -1), (idle, 1)):
                loads[rank] += change * costs[place]
                counts[rank] += change
            owners[place] = idle
    return owners


def _loads(costs: Sequence[int], owners: Sequence[int], ranks: int) -> list[int]:
    loads = [0] * ranks
    for cost, owner in zip(costs, owners, strict=True):
        loads[owner] += cost
    return loads
