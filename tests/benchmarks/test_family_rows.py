"""The rows of each family compare ways that compute the same."""

import pytest
import torch

from benchmarks.families import PLAIN, FamilyCase, FamilyGroup

SMALL = FamilyCase(question_bytes=10, response_tokens=4, num_responses=2)


@pytest.mark.parametrize("family", PLAIN)
def test_every_way_that_is_timed_computes_the_same_and_as_many_tokens(family):
    group = FamilyGroup(family, SMALL)
    assert group.shared == ("twopass" if family == "gemma3" else "auto")
    with torch.no_grad():
        expected = group.logprobs("plain")
        for way in ("padded", group.shared):
            torch.testing.assert_close(group.logprobs(way), expected, rtol=0, atol=1e-5)
        assert group.sample_plain() == group.sample_shared() == 2 * 4
