"""policy.measure: what score says where both say it, and dense distributions where only it does."""

from dataclasses import fields

import pytest
import torch
from model_fixtures import tiny_policy
from models.test_views_scored import NUM_RESPONSES, responses, shown_in_two_ways

from papo.functional import distributions

WANTED = (
    ("image", "entropy"),
    ("image", "nucleus_entropy"),
    ("darker", "logprobs"),
    ("darker", "entropy"),
    ("darker", "kl_from_image"),
    ("noised", "jsd_from_image"),
    ("noised", "nucleus_entropy"),
)


def measured(policy, wanted=WANTED):
    groups = shown_in_two_ways(policy)
    ids, mask = responses(groups)
    return groups, ids, mask, policy.measure(groups, ids, mask, wanted=wanted)


def test_it_says_what_score_says(family):
    policy = tiny_policy(family, head_chunk_size=3)
    groups, ids, mask, got = measured(policy)
    assert set(got) == {"image", "darker", "noised"}
    with torch.no_grad():
        scores = policy.score(
            groups, ids, mask, views=("image", "darker", "noised"), full_vocabulary=True
        )
    for view, seen in got.items():
        torch.testing.assert_close(seen.logprobs, scores[view].logprobs, rtol=0, atol=1e-5)
        assert not seen.logprobs.requires_grad
    for view in ("image", "darker"):
        torch.testing.assert_close(got[view].entropy, scores[view].entropy, rtol=0, atol=1e-5)
    kl = got["darker"].kl_from_image
    torch.testing.assert_close(kl, scores["darker"].kl_from_image, rtol=0, atol=1e-5)
    assert float(kl.max()) > 1e-4
    assert got["noised"].entropy is None
    assert got["image"].kl_from_image is None


def dense(policy, groups, ids, mask, view):
    """log pi over the vocabulary at every response token, with what one pass per token says of its sampling."""
    states = policy._response_hidden(
        tuple(
            shown[row % len(shown)] if len(shown := group.shown_in(view)) > 1 else shown[0]
            for group in groups
            for row in range(NUM_RESPONSES)
        )
        if view != "image"
        else groups,
        ids,
        mask,
    )
    return policy.next_token_logprobs(states)


def test_jsd_and_nucleus_entropy_are_those_of_the_dense_distributions(family):
    policy = tiny_policy(family, head_chunk_size=5)
    groups, ids, mask, got = measured(policy)
    with torch.no_grad():
        p, q = (dense(policy, groups, ids, mask, view) for view in ("image", "noised"))
    jsd = distributions.jensen_shannon_divergence(p, q)
    torch.testing.assert_close(got["noised"].jsd_from_image[mask], jsd, rtol=0, atol=1e-5)
    for view, log_p in (("image", p), ("noised", q)):
        entropy = distributions.nucleus_entropy(log_p)
        torch.testing.assert_close(got[view].nucleus_entropy[mask], entropy, rtol=0, atol=1e-4)
    assert float(jsd.max()) > 1e-5


@pytest.mark.parametrize(
    ("wanted", "views"),
    [
        ((("darker", "logprobs"),), {"darker"}),
        ((("darker", "entropy"),), {"darker"}),
        ((("image", "entropy"),), {"image"}),
        ((("darker", "kl_from_image"),), {"darker", "image"}),
        (WANTED, {"darker", "noised", "image"}),
    ],
)
def test_it_reads_what_it_needs_and_no_more(wanted, views):
    policy, passes = tiny_policy(), []
    policy.model.model.language_model.register_forward_hook(lambda *_: passes.append(1))
    _, _, mask, got = measured(policy, wanted)
    assert set(got) == views
    assert len(passes) == len(views)
    for seen in got.values():
        at_padding = seen.map(lambda values: values.masked_fill(mask, 0.0))
        for field in fields(at_padding):
            values = getattr(at_padding, field.name)
            assert values is None or not values.any()
