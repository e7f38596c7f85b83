"""CPPO's contrast: which tokens count is settled once per rollout, so no cut of an update changes its mean."""

import math
from dataclasses import replace

import pytest
import torch
from method_rows import MASK, blocks_of, draw, logprobs, make_batch

from papo.methods import ViewContrast
from papo.objective import Objective, SettingError
from papo.parallel import Ranks
from papo.training import trim
from papo.training.credit import credited
from papo.types import IMAGE, ViewScores

SETTINGS = {"preserve": "kept", "remove": "lost", "temperature": 0.1, "top_share": 0.5}


def contrast(**settings):
    return ViewContrast(**{"weight": 0.01, **SETTINGS, **settings})


def entropies():
    return {
        IMAGE: ViewScores(logprobs=logprobs(1), entropy=draw(2, low=0.2)),
        "lost": ViewScores(logprobs=logprobs(3), entropy=draw(4, low=0.2)),
    }


def live():
    views = zip((IMAGE, "kept", "lost"), (5, 6, 7), strict=True)
    return {view: ViewScores(logprobs=logprobs(seed).requires_grad_()) for view, seed in views}


def part_of(scores, rows):
    return {view: seen.map(lambda values: values[rows]) for view, seen in scores.items()}


def settled(term, per_minibatch=None):
    objective = Objective(terms={"contrast": term}, count_epsilon=0.0)
    batch = make_batch(entropies())
    return objective, objective.credit(batch, blocks_of(batch, per_minibatch), progress=0.0)


def naive(batch, scores, temperature=0.1, top_share=0.5, gated=True):
    """The definition, one token at a time, over the whole rollout as one minibatch."""
    total, count = 0.0, 0
    clean, removed = (batch.old_views[view].entropy for view in (IMAGE, "lost"))
    for row, length in enumerate(batch.response_mask.sum(1).tolist()):
        rises = {}
        for t in range(length):
            before, after = float(clean[row, t]), float(removed[row, t])
            if after > before:
                rises[t] = (after - before) / (after + 1e-8)
        kept = sorted(rises, key=rises.get, reverse=True)
        kept = kept[: max(1, int(top_share * len(kept)))] if kept else []
        for t in kept:
            if gated and batch.advantages[row, t] <= 0:
                continue
            image, kept_view, lost = (
                scores[view].logprobs[row, t].item() for view in (IMAGE, "kept", "lost")
            )
            changed = [math.exp(v - image) - (v - image) - 1 for v in (kept_view, lost)]
            total += math.log1p(math.exp((changed[0] - changed[1]) / temperature))
            count += 1
    return total / count


@pytest.mark.parametrize("gated", [True, False])
def test_matches_the_definition(gated):
    objective, batch = settled(contrast(gate="positive" if gated else "all"))
    scores = live()
    got = objective(batch, scores, minibatch=batch, progress=0.0)["contrast"]
    assert got.item() == pytest.approx(naive(batch, scores, gated=gated), rel=1e-10)


def test_value_by_hand():
    """No difference between the views: softplus(0) = log 2, whatever the temperature."""
    objective, batch = settled(contrast())
    same = dict.fromkeys((IMAGE, "kept", "lost"), ViewScores(logprobs=logprobs(5)))
    got = objective(batch, same, minibatch=batch, progress=0.0)["contrast"]
    assert got.item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("per_minibatch", [8, 4])
@pytest.mark.parametrize("average", ["token", "sequence"])
def test_micro_batches_add_up_to_the_minibatch(average, per_minibatch):
    objective, batch = settled(contrast(average=average), per_minibatch)
    groups = per_minibatch // batch.num_responses
    for first in range(0, 4, groups):
        minibatch = batch.select_groups(first, first + groups)
        scores = live()
        rows = slice(2 * first, 2 * (first + groups))
        whole = part_of(scores, rows)
        expected = objective(minibatch, whole, minibatch=minibatch, progress=0.0)["total"]
        parts = []
        for group in range(first, first + groups):
            own = slice(2 * group, 2 * group + 2)
            part = part_of(scores, own)
            micro = batch.select_groups(group, group + 1)
            parts.append(objective(micro, part, minibatch=minibatch, progress=0.0)["total"])
        torch.testing.assert_close(torch.stack(parts).sum(), expected)


def test_the_mean_is_over_the_tokens_of_a_minibatch_that_count():
    _, batch = settled(contrast(), 4)
    for rows in (slice(0, 4), slice(4, 8)):
        weights, mask = batch.term_weights["contrast"][rows], MASK[rows]
        assert float(weights.sum()) == pytest.approx(float(mask.sum()))
        assert len(weights[weights > 0].unique()) == 1


def test_every_view_has_a_gradient_that_descends():
    objective, batch = settled(contrast())
    scores = live()
    before = objective(batch, scores, minibatch=batch, progress=0.0)["contrast"]
    before.backward()
    step = 0.01
    moved = {}
    for view, seen in scores.items():
        assert float(seen.logprobs.grad.norm()) > 1e-4
        outside = seen.logprobs.grad[batch.term_weights["contrast"] == 0]
        assert not outside.any()
        moved[view] = ViewScores(logprobs=(seen.logprobs - step * seen.logprobs.grad).detach())
    after = objective(batch, moved, minibatch=batch, progress=0.0)["contrast"]
    assert after.item() < before.item()


def test_with_k1_the_anchor_cancels():
    """The second code: nothing pulls at what the policy says of the image itself."""
    objective, batch = settled(contrast(divergence="k1"))
    scores = live()
    objective(batch, scores, minibatch=batch, progress=0.0)["contrast"].backward()
    assert not scores[IMAGE].logprobs.grad.any()
    chosen = batch.term_weights["contrast"] > 0
    assert (scores["kept"].logprobs.grad[chosen] < 0).all()
    assert (scores["lost"].logprobs.grad[chosen] > 0).all()


def test_where_no_entropy_rises_nothing_is_pulled():
    objective = Objective(terms={"contrast": contrast()}, count_epsilon=0.0)
    same = ViewScores(logprobs=logprobs(1), entropy=draw(2))
    batch = make_batch({IMAGE: same, "lost": same})
    batch = objective.credit(batch, blocks_of(batch), progress=0.0)
    scores = live()
    value = objective(batch, scores, minibatch=batch, progress=0.0)["contrast"]
    value.backward()
    assert value.item() == 0.0
    assert not any(seen.logprobs.grad.any() for seen in scores.values())


def test_padding_never_matters():
    objective, batch = settled(contrast())
    scores = live()
    wild = {
        view: seen.map(lambda values: values.masked_fill(~MASK, float("nan")))
        for view, seen in scores.items()
    }
    expected = objective(batch, scores, minibatch=batch, progress=0.0)["total"]
    torch.testing.assert_close(
        objective(batch, wild, minibatch=batch, progress=0.0)["total"], expected
    )


def test_what_it_needs_is_two_live_views_and_two_entropies_of_the_rollout_policy():
    needs = contrast().needs
    assert needs.live_views == ("kept", "lost")
    assert needs.old == {("lost", "entropy"), (IMAGE, "entropy")}
    assert needs.views == {"kept", "lost"}
    assert not contrast(top_share=None).needs.old


def test_how_many_tokens_count_is_watched():
    objective, batch = settled(contrast())
    watched = objective.diagnostics(batch, live(), batch)
    chosen = (batch.term_weights["contrast"] > 0).sum() / MASK.sum()
    assert float(watched["contrast_chosen"]) == pytest.approx(float(chosen))


def test_without_the_choice_the_objective_does_not_guess():
    objective, batch = settled(contrast())
    unsettled = replace(batch, term_weights={})
    with pytest.raises(ValueError, match=r"'contrast'.*which tokens count"):
        objective(unsettled, live(), minibatch=batch, progress=0.0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"temperature": 0.0}, "temperature must be above 0; got 0.0"),
        ({"top_share": 1.5}, "top_share is a share.*got 1.5"),
        ({"divergence": "k2"}, "divergence must be one of k3, k1; got 'k2'"),
        ({"gate": "correct"}, "gate must be one of positive, all; got 'correct'"),
    ],
)
def test_what_it_refuses_names_the_setting(settings, said):
    with pytest.raises(SettingError, match=said):
        contrast(**settings)


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


def test_several_ranks_choose_what_one_chooses():
    objective, whole = settled(contrast(), 4)
    batch = make_batch(entropies())
    blocks = blocks_of(batch, 4)
    places = ([0, 3], [1, 2])

    def own(some):
        parts = [batch.select_groups(place, place + 1) for place in some]
        joined = {
            name: torch.cat([getattr(part, name) for part in parts])
            for name in ("response_mask", "old_logprobs", "advantages", "correct", "rewards")
        }
        views = {
            view: ViewScores.concatenate([part.old_views[view] for part in parts])
            for view in batch.old_views
        }
        return replace(batch, old_views=views, **joined)

    def of(some, ranks):
        credit = objective.credit
        return credited(own(some), some, credit=credit, blocks=blocks, ranks=ranks, progress=0.0)

    said = []
    for some in places:
        with pytest.raises(Gathered) as heard:
            of(some, OneOf())
        said.append(heard.value.args[0])
    expected = whole.term_weights["contrast"].reshape(4, 2, -1)
    for some in places:
        mine, metrics = of(some, OneOf(said))
        assert torch.equal(mine.term_weights["contrast"], expected[some].flatten(0, 1))
        assert metrics == {}


def test_weights_and_flags_are_cut_like_all_that_stands_at_tokens():
    _, batch = settled(contrast())
    part = trim(replace(batch, flagged=MASK).select_groups(1, 2))
    assert part.term_weights["contrast"].shape == part.flagged.shape == part.response_mask.shape
    assert torch.equal(part.term_weights["contrast"], batch.term_weights["contrast"][2:4, :4])
