"""The number of ranks changes nothing: the same prompts, responses, metrics and weights."""

import numpy as np
import pytest
from cases import BY_TOKENS, OLD_MASKED_AND_REFERENCE, RESAMPLING, trained
from pool import on_ranks

pytestmark = pytest.mark.dist

TINY = {"hidden_size": 32, "intermediate_size": 32, "vision_hidden_size": 32}

CASES = {
    "lab": {},
    "dynamic sampling": RESAMPLING,
    "passes cut by tokens": BY_TOKENS,
    "old masked view and reference": OLD_MASKED_AND_REFERENCE,
    "pictures": {"tiny": TINY},
    "some without a picture": {"tiny": TINY, "text_only": (0, 3, 5, 6), **BY_TOKENS},
    "smolvlm": {"tiny": {**TINY, "family": "smolvlm"}, "text_only": (0, 3)},
    "gemma3": {"tiny": {**TINY, "family": "gemma3", "scoring": "auto"}, "text_only": (0, 3)},
    "gemma4": {"tiny": {**TINY, "family": "gemma4", "scoring": "auto"}, "text_only": (0, 3)},
    "none with a picture": {"tiny": TINY, "text_only": range(8)},
}


def largest_difference(one, other):
    assert one.keys() == other.keys()
    return max(np.abs(one[name] - other[name]).max() for name in one)


def same_metrics(one, other):
    names = {name for name in one if name != "update/microbatch_halvings"}
    return max(abs(one[name] - other[name]) for name in names)


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_do_the_run_of_one(case):
    from papo.parallel import Ranks

    alone = trained(Ranks(), **CASES[case])
    together = on_ranks(trained_on, CASES[case])
    for mine in together:
        assert mine["texts"] == alone["texts"]
        assert mine["rewards"] == alone["rewards"]
        assert mine["prompts_drawn"] == alone["prompts_drawn"]
        assert largest_difference(mine["weights"], alone["weights"]) <= 1e-12
        assert mine["metrics"].keys() == alone["metrics"].keys()
        assert same_metrics(mine["metrics"], alone["metrics"]) <= 1e-6
    assert sum(mine["own_groups"] for mine in together) == alone["own_groups"]
    assert all(mine["own_groups"] < alone["own_groups"] for mine in together)


def trained_on(ranks, settings):
    return trained(ranks, **settings)
