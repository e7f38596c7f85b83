"""How credits are applied: in order, checked, without gradient; and what their metrics are."""

from dataclasses import dataclass, field, replace

import pytest
import torch
from objective_checks import ToyPolicy, make_batch, make_objective

from papo.objective import Blocks, Credit, Objective, SettingError, credit_metrics, old, old_needs
from papo.types import Needs

BLOCKS = Blocks(num_rollouts=12, num_responses=3, rollouts_per_minibatch=6)


@dataclass(kw_only=True, eq=False)
class Times(Credit):
    """Multiplies, or does what it is told to."""

    factor: float = 1.0
    asks: Needs = field(default_factory=Needs)
    spoil: object = None

    @property
    def needs(self):
        return self.asks

    def __call__(self, batch, blocks, *, progress):
        advantages = batch.advantages * self.factor
        return advantages if self.spoil is None else self.spoil(advantages)


def objective(**credits):
    terms = make_objective("official", "grpo").terms
    return Objective(terms=terms, credits=credits, count_epsilon=0.0)


def batch():
    return make_batch(ToyPolicy(1))


def test_blocks_are_all_rows_in_order_by_scope():
    blocks = Blocks(num_rollouts=10, num_responses=2, rollouts_per_minibatch=4)
    sizes = {
        scope: [rows.stop - rows.start for rows in blocks.rows(scope)]
        for scope in ("response", "group", "minibatch", "rollout")
    }
    assert sizes == {
        "response": [1] * 10,
        "group": [2] * 5,
        "minibatch": [4, 4, 2],
        "rollout": [10],
    }
    with pytest.raises(SettingError, match=r"scope must be one of response.*'micro'"):
        blocks.rows("micro")


def test_credits_are_applied_one_after_another_and_0_at_padding():
    seen = batch()
    given = objective(a=Times(factor=2.0), b=Times(spoil=lambda x: x + 1)).credit(
        seen, BLOCKS, progress=0.0
    )
    expected = (2 * seen.advantages + 1).where(seen.response_mask, 0.0)
    torch.testing.assert_close(given.advantages, expected)
    assert given.old_logprobs is seen.old_logprobs


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda x: x[:, :1], r"one advantage per token, \(12, 5\); got \(12, 1\) from 'bad'"),
        (
            lambda x: x / 0,
            r"finite advantages; got NaN or infinity from 'bad' \(objective.credits.bad\)",
        ),
    ],
)
def test_what_a_credit_may_not_return_is_named(spoil, said):
    with pytest.raises(ValueError, match=said):
        objective(bad=Times(spoil=spoil)).credit(batch(), BLOCKS, progress=0.0)


def test_nan_at_padding_is_no_error():
    seen = batch()
    assert not seen.response_mask.all()
    spoilt = Times(spoil=lambda x: x.masked_fill(~seen.response_mask, float("nan")))
    given = objective(a=spoilt).credit(seen, BLOCKS, progress=0.0)
    assert torch.isfinite(given.advantages).all()


def test_a_credit_that_asks_the_updated_policy_is_refused_at_once():
    asks = Needs(now=frozenset({("masked", "logprobs")}))
    with pytest.raises(
        SettingError, match=r"'mine'.*updated policy's logprobs given 'masked'.*old="
    ):
        objective(mine=Times(asks=asks))


def test_what_a_credit_lacks_is_named():
    made = objective(mine=Times(asks=old_needs(("noised", "entropy"))))
    assert made.needs.old_views == ("noised",)
    with pytest.raises(
        ValueError, match=r"'mine'.*rollout policy's entropy given the view 'noised'"
    ):
        made.credit(batch(), BLOCKS, progress=0.0)


def test_old_reads_what_the_rollout_policy_said():
    seen = batch()
    assert old(seen, "image") is seen.old_logprobs
    assert old(seen, "masked") is seen.old_views["masked"].logprobs


def with_advantages(numbers):
    mask = torch.tensor([[True, True], [True, False], [True, True]])
    rows = torch.tensor(numbers, dtype=torch.float64)
    seen = batch()
    seen = replace(
        seen.select_groups(0, 1),
        response_mask=mask,
        advantages=rows,
        old_logprobs=torch.zeros(3, 2, dtype=torch.float64),
        ref_logprobs=None,
        behaviour_logprobs=None,
        old_views={},
        response_ids=None,
    )
    return seen


def test_metrics_by_hand():
    # Of -1, -1, 2, (padding), 0, 0 the first three count; they become -2, 0, 1: w = 2, 0, 1/2.
    before = with_advantages([[-1.0, -1.0], [2.0, 9.0], [0.0, 0.0]])
    after = with_advantages([[-2.0, 0.0], [1.0, 7.0], [5.0, 5.0]])
    got = credit_metrics(before, after)
    assert got["credit/scale"] == pytest.approx(3 / 4)
    assert got["credit/zero_share"] == pytest.approx(1 / 3)
    assert got["credit/effective_share"] == pytest.approx(2.5**2 / (3 * 4.25))


def test_metrics_are_there_where_no_token_has_an_advantage():
    nothing = with_advantages([[0.0, 0.0]] * 3)
    same = credit_metrics(nothing, nothing)
    some = with_advantages([[1.0, 1.0], [-1.0, 0.0], [2.0, 2.0]])
    unmoved = credit_metrics(some, some)
    assert (
        same
        == unmoved
        == {"credit/scale": 1.0, "credit/zero_share": 0.0, "credit/effective_share": 1.0}
    )
