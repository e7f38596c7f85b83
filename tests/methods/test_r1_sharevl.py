"""R1-ShareVL: a response is compared with all of its group, and with those to its own variant."""

import statistics

import pytest
import torch
from method_rows import MASK, blocks_of, make_batch

from papo.methods import ShareGRPO
from papo.objective import SettingError

REWARDS = [1.0, 0.0, 0.9, 0.1, 0.1, 1.0, 1.0, 1.0]


def credit(**settings):
    return ShareGRPO(**{"variants": 2, "epsilon": 1e-6, **settings})


def advantages(one, rewards=REWARDS, num_responses=4):
    batch = make_batch(rewards=rewards, num_responses=num_responses)
    return one(batch, blocks_of(batch), progress=0.0)


def naive(rewards, *, copies=1, within=1.0):
    """Two groups of two variants with two responses each, in Python floats."""
    found = []
    for first in (0, 4):
        group = rewards[first : first + 4]
        spread = statistics.stdev(group * copies)
        for place, reward in enumerate(group):
            own = group[place // 2 * 2 : place // 2 * 2 + 2]
            inside = (reward - statistics.mean(own)) / (statistics.stdev(own) + 1e-6)
            among = (reward - statistics.mean(group)) / (spread + 1e-6)
            found.append(among + within * inside)
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("settings", [{}, {"copies": 2}, {"within": 0.0}])
def test_matches_the_definition(settings):
    got = advantages(credit(**settings))
    torch.testing.assert_close(got[:, 0], naive(REWARDS, **settings), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(got, got[:, :1] * MASK)


def test_by_hand():
    """Rewards 1 0 | 1 1: overall z 1/2, -3/2, 1/2, 1/2; inside 1/sqrt 2, -1/sqrt 2, 0, 0."""
    got = advantages(credit(epsilon=1e-12), [1.0, 0.0, 1.0, 1.0, *REWARDS[4:]])[:, 0]
    expected = [0.5 + 2**-0.5, -1.5 - 2**-0.5, 0.5, 0.5]
    torch.testing.assert_close(got[:4], torch.tensor(expected, dtype=torch.float64))


def test_one_variant_is_twice_the_plain_advantage():
    plain = advantages(credit(variants=1, within=0.0))
    torch.testing.assert_close(advantages(credit(variants=1)), 2 * plain)


def test_permuting_the_responses_to_a_variant_permutes_the_advantages():
    order = [1, 0, 3, 2, 4, 5, 6, 7]
    got = advantages(credit(), [REWARDS[i] for i in order])[:, 0]
    torch.testing.assert_close(got, advantages(credit())[:, 0][order])


def test_groups_that_have_no_equal_blocks_are_refused():
    for sampled in ({"image": 5}, {"image": 3, "turned": 2}, {"image": 2, "a": 2, "b": 2}):
        with pytest.raises(SettingError, match=r"got variants=2 and \d of image.*sampled_from"):
            credit().check_group(sampled)
    credit().check_group({"image": 3, "turned": 3})
    credit(variants=1).check_group({"image": 5})
    with pytest.raises(SettingError, match="variants is 1 or more; got 0"):
        credit(variants=0)
    for name in ("epsilon", "within"):
        with pytest.raises(SettingError, match=f"{name} is at least 0; got -1"):
            credit(**{name: -1.0})
    with pytest.raises(SettingError, match="copies is 1 or more; got 0"):
        credit(copies=0)
