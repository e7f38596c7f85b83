"""The gradients of the terms on two ranks: one measures, both know, and nothing of the run moves."""

import numpy as np
import pytest
from cases import trained
from pool import on_ranks

pytestmark = pytest.mark.dist

TERMS = {"gamma": 0.1, "eta_full": 0.1, "eta_masked": 0.1, "masked_policy": "current"}


def measured(ranks, every_updates, on_fault, settings):
    """`facts` of the run, or what a rank says where it stops."""
    from papo.training.callbacks import TermGradients

    callback = TermGradients(every_updates=every_updates, prompts=2, on_fault=on_fault)
    try:
        return trained(ranks, callback, **{**TERMS, **settings})
    except ValueError as error:
        return str(error)


def gradients(facts):
    return {name: each for name, each in facts["metrics"].items() if name.startswith("gradient/")}


def test_both_ranks_know_what_one_measured_and_train_what_they_did_without():
    plain = on_ranks(measured, 0, "warn", {})
    found = on_ranks(measured, 1, "warn", {})
    first, second = map(gradients, found)
    assert first == pytest.approx(second, rel=0, abs=0, nan_ok=True)
    assert first["gradient/perception_kl/norm"] > 0
    assert not gradients(plain[0])
    for one, other in zip(plain, found, strict=True):
        for name, weights in one["weights"].items():
            assert np.array_equal(weights, other["weights"][name])


def test_a_fault_stops_both_ranks_with_the_same_words():
    one, other = on_ranks(measured, 1, "stop", {"masked_policy": "old"})
    assert "objective.terms.masked_entropy: has a weight and no gradient" in one
    assert other == one


def test_where_weights_are_in_shards_nothing_is_measured_and_the_run_goes_on():
    facts = on_ranks(measured, 1, "warn", {"shards": {}})
    assert not gradients(facts[0])
