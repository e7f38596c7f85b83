"""Which rank trains which group: a partition, balanced, and a pure function of the lengths."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papo.parallel import Ranks, deal

COSTS = st.lists(st.integers(1, 5000), min_size=1, max_size=96)


@given(COSTS, st.integers(1, 12), st.integers(1, 32))
def test_no_rank_has_more_than_the_best_deal_allows(costs, ranks, per_minibatch):
    owners = deal(costs, ranks=ranks, groups_per_minibatch=per_minibatch, most_per_rank=None)
    assert len(owners) == len(costs)
    for start in range(0, len(costs), per_minibatch):
        part = costs[start : start + per_minibatch]
        loads = [0] * ranks
        for owner, cost in zip(owners[start:], part, strict=False):
            loads[owner] += cost
        # Graham's bound: the last group of the busiest rank went to the least loaded of then.
        assert max(loads) * ranks <= sum(part) + max(part) * (ranks - 1)


@given(COSTS, st.integers(1, 12), st.integers(1, 32))
def test_by_prompts_every_rank_has_as_many_up_to_one_pass(costs, ranks, per_minibatch):
    most = -(-per_minibatch // ranks)
    owners = deal(costs, ranks=ranks, groups_per_minibatch=per_minibatch, most_per_rank=most)
    for start in range(0, len(costs), per_minibatch):
        counts = [owners[start : start + per_minibatch].count(rank) for rank in range(ranks)]
        assert max(counts) <= most
        if len(costs) - start >= per_minibatch >= ranks:
            assert min(counts) >= 1


@given(COSTS, st.integers(2, 8))
def test_equal_groups_are_dealt_evenly(costs, ranks):
    owners = deal([7] * len(costs), ranks=ranks, groups_per_minibatch=64, most_per_rank=None)
    for start in range(0, len(costs), 64):
        counts = [owners[start : start + 64].count(rank) for rank in range(ranks)]
        assert max(counts) - min(counts) <= 1


def test_the_costliest_group_is_dealt_first_and_alone_where_it_outweighs_the_rest():
    owners = deal([1, 1, 9, 1], ranks=2, groups_per_minibatch=4, most_per_rank=None)
    assert owners.count(owners[2]) == 1


def test_ties_do_not_always_favour_rank_0():
    owners = deal([5] * 9, ranks=3, groups_per_minibatch=1, most_per_rank=None)
    assert owners == [0, 1, 2] * 3


def test_too_little_room_is_refused():
    with pytest.raises(ValueError, match="cannot take the 5"):
        deal([1] * 5, ranks=2, groups_per_minibatch=5, most_per_rank=2)


@given(st.integers(0, 200), st.integers(1, 70))
def test_shares_are_consecutive_and_cover_everything_once(count, size):
    shares = [Ranks(rank=rank, size=size).share(count) for rank in range(size)]
    assert [position for share in shares for position in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def busiest(costs, owners):
    return max(
        sum(c for c, o in zip(costs, owners, strict=True) if o == rank) for rank in {*owners}
    )


def test_groups_are_packed_tighter_than_largest_first_leaves_them():
    # Largest first: 7+4+4, 6+5 = 15 and 11; the halves are 7+6 and 5+4+4.
    costs = [7, 6, 5, 4, 4]
    owners = deal(costs, ranks=2, groups_per_minibatch=5, most_per_rank=None)
    assert busiest(costs, owners) == 13


@given(COSTS, st.integers(1, 12), st.integers(1, 32))
def test_every_rank_has_a_group_where_there_are_enough(costs, ranks, per_minibatch):
    owners = deal(costs, ranks=ranks, groups_per_minibatch=per_minibatch, most_per_rank=None)
    for start in range(0, len(costs), per_minibatch):
        part = owners[start : start + per_minibatch]
        assert len({*part}) == min(ranks, len(part))
