"""The bounded margin between two views: its value, its gradient, where it stops, and what is refused."""

import math

import pytest
import torch
from method_rows import MASK, logprobs, make_batch
from methods.credit_cases import config_of

from papo.commands.building import make_objective
from papo.methods import ViewMargin
from papo.objective import Objective, SettingError
from papo.training.callbacks.safeguard import steered_terms
from papo.types import IMAGE, ViewScores


def margin(**settings):
    given = {"weight": 1.0, "direction": "raise", "average": "sequence"}
    return ViewMargin(**{**given, "view": "masked", "policy": "current", "bound": 5.0, **settings})


def live(seed=1, **views):
    made = {IMAGE: logprobs(seed), "masked": logprobs(seed + 1), **views}
    return {
        view: ViewScores(logprobs=values.clone().requires_grad_()) for view, values in made.items()
    }


def total(term, scores, batch):
    objective = Objective(terms={"margin": term}, count_epsilon=0.0)
    return objective(batch, scores, minibatch=batch, progress=0.0)["margin"]


def test_matches_the_definition_one_response_at_a_time():
    batch, scores = make_batch({}), live()
    expected = []
    for row, length in enumerate(MASK.sum(1).tolist()):
        image, masked = (scores[view].logprobs[row, :length] for view in (IMAGE, "masked"))
        m = max(-5.0, min(5.0, (image - masked).sum().item()))
        expected.append(-math.log(1 + math.exp(-m)))
    got = total(margin(), scores, batch).item()
    assert got == pytest.approx(sum(expected) / len(expected), rel=1e-12)


def test_its_gradient_raises_one_view_and_lowers_the_other_by_what_is_missing():
    batch, scores = make_batch({}), live()
    total(margin(), scores, batch).backward()
    image, masked = (scores[view].logprobs for view in (IMAGE, "masked"))
    sums = ((image - masked) * MASK).sum(1, keepdim=True).detach()
    assert (sums.abs() < 5).any()
    missing = (1 - sums.sigmoid()) * (sums.abs() < 5) * MASK
    # A response's number is the mean of what stands at each of its tokens, which is one number.
    expected = missing / len(MASK)
    torch.testing.assert_close(image.grad, expected, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(masked.grad, -expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("sign", [1, -1])
def test_it_stops_at_the_bound(sign):
    batch, scores = make_batch({}), live(masked=logprobs(1) - sign * 6.0)
    value = total(margin(), scores, batch)
    value.backward()
    assert value.item() == pytest.approx(-math.log1p(math.exp(-5.0 * sign)), rel=1e-12)
    assert not scores[IMAGE].logprobs.grad.any()


def test_no_difference_is_log_two_and_padding_is_not_read():
    batch = make_batch({})
    padded = logprobs(1).masked_fill(~MASK, math.nan)
    value = total(margin(), live(masked=padded), batch)
    assert value.item() == pytest.approx(-math.log(2), rel=1e-12)


def test_the_view_of_the_rollout_is_a_constant():
    batch = make_batch({"masked": ViewScores(logprobs=logprobs(3))})
    scores = live()
    total(margin(policy="old"), scores, batch).backward()
    assert scores[IMAGE].logprobs.grad.any()
    assert scores["masked"].logprobs.grad is None


@pytest.mark.parametrize(
    ("settings", "key"), [({"bound": 0.0}, "bound"), ({"policy": "newest"}, "policy")]
)
def test_a_wrong_setting_is_named(settings, key):
    with pytest.raises(SettingError, match=f"^{key} must be"):
        margin(**settings)


def test_the_safeguard_steers_it():
    assert steered_terms(make_objective(config_of("papo_margin", "official"))) == (
        "entropy",
        "margin",
    )
