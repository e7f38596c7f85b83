"""What two ranks do and tell one another, counted: the work is shared, and gradients travel once per update."""

from collections import Counter

import pytest
from cases import built, trained
from pool import on_ranks

pytestmark = pytest.mark.dist


def counted(ranks):
    from benchmarks.scaling_ranks import count

    counts = Counter()
    count(counts)
    trained(ranks)
    return dict(counts)


def test_ranks_share_the_tokens_and_sum_gradients_once_per_update():
    from papo.parallel import Ranks

    [alone] = on_ranks(counted, size=1)
    together = on_ranks(counted)
    assert "all_reduce bytes" not in alone
    assert sum(mine["tokens"] for mine in together) == alone["tokens"]
    assert sum(mine["passes"] for mine in together) == alone["passes"] == 16
    assert max(mine["tokens"] for mine in together) <= 1.1 * alone["tokens"] / 2
    module = built(Ranks(), ".")
    numbers = sum(p.numel() for p in module.policy_module.policy.parameters() if p.requires_grad)
    # 2 rollouts of 2 updates; on two ranks a sum brings half of the numbers, twice.
    assert {mine["all_reduce bytes"] for mine in together} == {4 * 8 * numbers}
