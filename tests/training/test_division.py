"""Who trains what of a rollout, as papo/training/division.py draws it."""

import re

import pytest

from papo.training import division
from papo.training.microbatches import MicrobatchCutter, shared_prefix_tokens

DRAWN = division.__doc__


def drawn_numbers(title, which):
    """The numbers of the lines that begin with a word, a step's beside another's; fillers as 0."""
    line = [one for one in DRAWN.splitlines() if one.strip().startswith(title)][which]
    return re.sub(r"^\s*(rank \d|\w+)", "", line).split("  as drawn")[0].split("  known")[0]


def passes(text):
    return [
        [0] if one == "filler" else [int(number) for number in one.split()]
        for one in re.findall(r"\[([^]]+)\]", text)
    ]


@pytest.mark.parametrize("collective", [True, False])
@pytest.mark.parametrize("rank", [0, 1])
def test_the_drawing_is_what_is_divided(rank, collective):
    tokens = [int(number) for number in drawn_numbers("tokens", 0).split()]
    # Two responses that are half of what is not the prompt.
    responses = [(cost - 100) // 2 for cost in tokens for _ in range(2)]
    cutter = MicrobatchCutter(prompts=None, tokens=600, count_tokens=shared_prefix_tokens)
    found = division.divide(
        prompt_lengths=[100] * 8,
        response_lengths=[max(length, 1) for length in responses],
        pictures=[place == 0 for place in range(8)],
        prompts_per_minibatch=4,
        microbatches=cutter,
        rank=rank,
        num_ranks=2,
        collective=collective,
    )
    own = [tokens[place] for place in found.mine]
    assert own == [
        int(number) for number in drawn_numbers(f"rank {rank}", 0).replace("|", "").split()
    ]
    got = []
    for share in found.minibatches:
        costs = own[share.start : share.stop]
        halves = [(cost - 100) // 2 or 1 for cost in costs for _ in range(2)]
        bounds = cutter.bounds([100] * len(costs), halves)
        got += [costs[start:stop] for start, stop in bounds]
        got += [[0]] * share.fillers
    drawn = passes(drawn_numbers(f"rank {rank}", 1))
    assert got == (drawn if collective else [one for one in drawn if one != [0]])
    assert [share.has_pictures for share in found.minibatches] == [True, False]
    assert [share.counts.num_rollouts for share in found.minibatches] == [8, 8]
    assert sum(share.counts.num_tokens for share in found.minibatches) == sum(responses) + 2
    assert found.fillers == 0
