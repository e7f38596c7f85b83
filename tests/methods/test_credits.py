"""What holds of every credit that conf/ configures; a new one is tested by being there."""

from dataclasses import replace

import pytest
import torch
from methods.credit_cases import (
    BLOCKS,
    CLASSES,
    CREDITS,
    NUM_RESPONSES,
    NUM_TOKENS,
    blocks_of,
    credit_of,
    drawn,
    given,
    rollout,
    scopes_of,
)

from papo.objective import SCOPES, SettingError
from papo.objective.credit import assign_credit
from papo.parallel import Ranks
from papo.training.credit import credited
from papo.types import IMAGE

every_credit = pytest.mark.parametrize("name", CREDITS)


def with_quantity(batch, view, quantity, values):
    seen = replace(batch.old_views[view], **{quantity: values})
    return replace(batch, old_views={**batch.old_views, view: seen})


def test_every_credit_of_the_package_has_a_configuration():
    assert {type(credit_of(name)).__name__ for name in CREDITS} >= CLASSES
    assert len(CLASSES) >= 7


@every_credit
def test_it_changes_the_advantages_of_tokens(name):
    credit = credit_of(name)
    batch = rollout(credit)
    after = given(credit, batch)
    assert torch.isfinite(after).all()
    before = batch.advantages.where(batch.response_mask, 0.0)
    assert (after - before).abs().max() > 1e-3
    assert after.abs().max() > 1e-3
    spread = [row[m].unique().numel() for row, m in zip(after, batch.response_mask, strict=True)]
    of_responses = name in ("evidence_rl-evidence_rl", "r1_sharevl-share_grpo")
    assert max(spread) > 1 or of_responses, "no response's tokens differ"


@every_credit
def test_it_reacts_to_everything_that_it_asks_for(name):
    credit = credit_of(name)
    batch = rollout(credit)
    before = given(credit, batch)
    for view, quantity in credit.needs.old - {(IMAGE, "logprobs")}:
        other = drawn(quantity, batch.response_mask, torch.Generator().manual_seed(99))
        after = given(credit, with_quantity(batch, view, quantity, other))
        assert (after - before).abs().max() > 1e-3, f"{quantity} of {view} changes nothing"


@every_credit
def test_what_stands_at_padding_is_not_read(name):
    credit = credit_of(name)
    batch = rollout(credit)
    expected = given(credit, batch)
    spoilt = rollout(credit)
    padding = ~spoilt.response_mask
    spoilt.advantages[padding] = float("nan")
    spoilt.old_logprobs[padding] = float("nan")
    spoilt.response_ids[padding] = 10**9
    for scores in spoilt.old_views.values():
        scores.map(lambda values: values.masked_fill_(padding, float("nan")))
    assert torch.equal(given(credit, spoilt), expected)


@every_credit
def test_no_gradient_is_kept_and_nothing_of_the_batch_is_written_to(name):
    credit = credit_of(name)
    batch, untouched = rollout(credit), rollout(credit)
    given(credit, batch)
    assert torch.equal(batch.advantages, untouched.advantages)
    assert torch.equal(batch.old_logprobs, untouched.old_logprobs)
    for view, scores in batch.old_views.items():
        for quantity in ("logprobs", "entropy", "kl_from_image"):
            theirs = getattr(untouched.old_views[view], quantity)
            assert theirs is None or torch.equal(getattr(scores, quantity), theirs)


def in_order(batch, order):
    """The batch with its groups in another order."""
    rows = torch.cat([torch.arange(g * NUM_RESPONSES, (g + 1) * NUM_RESPONSES) for g in order])
    return rows, replace(
        batch,
        **{
            field: getattr(batch, field)[rows]
            for field in (
                *("response_mask", "old_logprobs", "advantages", "correct", "rewards"),
                "response_ids",
                *(("flagged",) if batch.flagged is not None else ()),
            )
        },
        old_views={
            view: scores.map(lambda values: values[rows])
            for view, scores in batch.old_views.items()
        },
    )


@every_credit
@pytest.mark.parametrize("scope", SCOPES)
def test_the_order_of_groups_within_a_minibatch_changes_nothing(name, scope):
    credit = credit_of(name)
    credit = replace(credit, **dict.fromkeys(scopes_of(credit), scope))
    batch = rollout(credit)
    rows, turned = in_order(batch, [1, 0, 3, 2])
    torch.testing.assert_close(given(credit, turned), given(credit, batch)[rows])


@every_credit
def test_with_statistics_of_a_group_no_other_group_matters(name):
    credit = credit_of(name)
    scopes = scopes_of(credit)
    credit = replace(credit, **dict.fromkeys(scopes, "group"))
    batch = rollout(credit)
    rows, turned = in_order(batch, [2, 3, 0, 1])
    torch.testing.assert_close(given(credit, turned), given(credit, batch)[rows])


class Gathered(Exception):
    """What a rank says to the others."""


class OneOf(Ranks):
    """A rank that either says what it has, or hears all."""

    def __init__(self, everyone=None):
        super().__init__()
        self.everyone = everyone

    def gather(self, value):
        if self.everyone is None:
            raise Gathered(value)
        return self.everyone


@every_credit
@pytest.mark.parametrize("owners", [[0, 1, 1, 0], [2, 0, 1, 0]])
def test_several_ranks_give_what_one_gives(name, owners):
    credit = credit_of(name)
    batch = rollout(credit)

    def rule(whole, blocks, *, progress):
        return assign_credit({name: credit}, whole, blocks, progress=progress)

    expected = rule(batch, BLOCKS, progress=0.0).advantages
    shares = []
    for rank in sorted(set(owners)):
        places = [place for place, owner in enumerate(owners) if owner == rank]
        rows, own = in_order(batch, places)
        shares.append((places, rows, replace(own, groups=())))

    def of(share, ranks):
        places, _, own = share
        return credited(own, places, credit=rule, blocks=BLOCKS, ranks=ranks, progress=0.0)

    said = []
    for share in shares:
        with pytest.raises(Gathered) as heard:
            of(share, OneOf())
        said.append(heard.value.args[0])
    metrics = []
    for share in shares:
        mine, found = of(share, OneOf(said))
        torch.testing.assert_close(mine.advantages, expected[share[1]], rtol=0, atol=0)
        metrics.append(found)
    assert all(found == metrics[0] for found in metrics)


@every_credit
def test_a_group_of_wrong_answers_alone_keeps_advantages_of_0(name):
    credit = credit_of(name)
    if name == "evidence_rl-evidence_rl":
        pytest.skip("wrong answers are ranked by their margin")
    batch = rollout(credit, rewards=torch.zeros(16, dtype=torch.float64))
    assert not given(credit, batch).any()


@every_credit
def test_responses_of_one_token_and_equal_tokens_are_no_trouble(name):
    credit = credit_of(name)
    one = rollout(credit, lengths=torch.ones(16, dtype=torch.long))
    assert torch.isfinite(given(credit, one)).all()
    equal = rollout(credit)
    for view, quantity in credit.needs.old - {(IMAGE, "logprobs")}:
        values = torch.full_like(equal.old_logprobs, 0.3).where(equal.response_mask, 0.0)
        equal = with_quantity(equal, view, quantity, values)
    assert torch.isfinite(given(credit, equal)).all()


@every_credit
def test_one_response_alone_is_no_trouble(name):
    credit = credit_of(name)
    batch = rollout(credit, num_groups=1)
    [alone] = [batch.select_groups(0, 1)]
    try:
        credit.check_group({IMAGE: 1})
    except SettingError:
        return
    if alone.flagged is not None:
        alone = replace(
            alone,
            flagged=alone.flagged[:1],
            num_responses=1,
            **{
                f: getattr(alone, f)[:1]
                for f in (
                    "response_mask",
                    "old_logprobs",
                    "advantages",
                    "correct",
                    "rewards",
                    "response_ids",
                )
            },
        )
    alone = replace(
        alone,
        num_responses=1,
        **{f: getattr(alone, f)[:1] for f in ("response_mask", "old_logprobs", "advantages")},
        **{f: getattr(alone, f)[:1] for f in ("correct", "rewards", "response_ids")},
        old_views={view: seen.map(lambda v: v[:1]) for view, seen in alone.old_views.items()},
    )
    assert alone.response_mask.shape == (1, NUM_TOKENS)
    assert torch.isfinite(given(credit, alone, blocks_of(alone))).all()


@every_credit
def test_a_share_out_of_range_is_refused_with_its_name(name):
    credit = credit_of(name)
    for share in [field for field in vars(credit) if field.endswith("share")]:
        for value in (0.0, -0.1, 1.1, float("nan")):
            with pytest.raises(SettingError, match=f"{share} is a share, above 0 and at most 1"):
                replace(credit, **{share: value})


@every_credit
def test_a_scope_that_does_not_exist_is_refused_with_its_name(name):
    for field in scopes_of(credit_of(name)):
        with pytest.raises(
            SettingError, match=rf"{field} must be one of response, group, .*'micro'"
        ):
            replace(credit_of(name), **{field: "micro"})
