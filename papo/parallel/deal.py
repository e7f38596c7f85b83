"""Which rank trains which group: dealt by length once the responses are known, the same on every rank."""

from collections.abc import Sequence


def deal(
    costs: Sequence[int], *, ranks: int, groups_per_minibatch: int, most_per_rank: int | None
) -> list[int]:
    """Returns the rank of the group at each place of a rollout.

    Every minibatch is dealt by itself, the costliest group first, each to the rank that has least of that
    minibatch yet (Graham's LPT rule, 1969: the busiest rank has at most 4/3 of the best possible load).
    Ranks with equal loads take turns from minibatch to minibatch, so that none is always last.

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
    owners = [0] * len(costs)
    for turn, start in enumerate(range(0, len(costs), groups_per_minibatch)):
        places = range(start, min(start + groups_per_minibatch, len(costs)))
        loads, counts = [0] * ranks, [0] * ranks
        for place in sorted(places, key=lambda place: (-costs[place], place)):
            free = (
                rank
                for rank in range(ranks)
                if most_per_rank is None or counts[rank] < most_per_rank
            )
            rank = min(free, key=lambda rank: (loads[rank], counts[rank], (rank - turn) % ranks))
            owners[place] = rank
            loads[rank] += costs[place]
            counts[rank] += 1
    return owners
