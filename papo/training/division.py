"""How a finished rollout is divided: its groups among the ranks, and those of a rank into optimiser steps and passes.

A group is a prompt with its G responses, and is never cut. Eight of them on two ranks, with
`training.prompts_per_minibatch=4` and `training.tokens_per_microbatch=600`:

                    optimiser step 1           optimiser step 2
    place           0    1    2    3           4    5    6    7      as drawn, the same on every rank
    tokens        900  200  300  500         400  400  100  900      known when every response is
                    |    |    |    |           |    |    |    |      papo.parallel.deal: each step by itself
    rank 0        900    |    |    |         400  400  100    |
    rank 1             200  300  500                        900

    passes of                                                        MicrobatchCutter: neighbours up to the budget
    rank 0        [900] [filler]             [400] [400 100]
    rank 1        [200 300] [500]            [900] [filler]

All ranks add up the gradients of a step before the optimiser moves. Where weights are in shards, a pass gathers
them from all ranks, so that all make as many: a filler is a pass whose loss counts nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from papo.parallel import deal
from papo.training.microbatches import MicrobatchCutter
from papo.types import MinibatchCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class MinibatchShare:
    """What a rank computes of one minibatch.

    Attributes:
        start, stop: its groups, as places in the rank's batch.
        counts: of the whole minibatch, on all ranks.
        fillers: passes beyond its own that it takes part in, where passes are collective.
        has_pictures: whether any prompt of the minibatch, on any rank, has one.
    """

    start: int
    stop: int
    counts: MinibatchCounts
    fillers: int
    has_pictures: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """What a rank has of a rollout.

    Attributes:
        mine: places of its groups in the rollout; its batch holds them in this order.
        minibatches: how that batch is cut into optimiser steps.
        fillers: as of MinibatchShare, of passes over the whole rollout.
    """

    mine: list[int]
    minibatches: tuple[MinibatchShare, ...]
    fillers: int


def divide(
    *,
    prompt_lengths: Sequence[int],
    response_lengths: Sequence[int],
    pictures: Sequence[bool],
    prompts_per_minibatch: int,
    microbatches: MicrobatchCutter,
    rank: int,
    num_ranks: int,
    collective: bool,
) -> Division:
    """Returns what a rank has; it follows from lengths that every rank knows, so that none has to ask.

    Args:
        prompt_lengths: tokens of each prompt.
        response_lengths: of all their responses, G in a row per prompt.
        pictures: whether each prompt has any.
        prompts_per_minibatch: of an optimiser step, on all ranks.
        microbatches: how passes are cut.
        rank: whose share it is.
        num_ranks: how many divide the rollout.
        collective: every rank takes part in every pass.
    """
    num_responses = len(response_lengths) // len(prompt_lengths)

    def lengths(places: range) -> tuple[Sequence[int], Sequence[int]]:
        rows = slice(places.start * num_responses, places.stop * num_responses)
        return prompt_lengths[places.start : places.stop], response_lengths[rows]

    everywhere = range(len(prompt_lengths))
    owners = deal(
        [microbatches.count_tokens(*lengths(range(place, place + 1))) for place in everywhere],
        ranks=num_ranks,
        groups_per_minibatch=prompts_per_minibatch,
        # Where passes are collective, a rank with more prompts would have the others make empty passes.
        most_per_rank=-(-prompts_per_minibatch // num_ranks)
        if collective and microbatches.prompts is not None
        else None,
    )

    def fillers(places: range) -> int:
        """Passes that this rank makes less than the one that makes most."""
        if not collective:
            return 0
        of_places = owners[places.start : places.stop]
        passes = microbatches.num_passes(*lengths(places), of_places, num_ranks)
        return max(passes) - passes[rank]

    shares, stop = [], 0
    for first in everywhere[::prompts_per_minibatch]:
        places = everywhere[first : first + prompts_per_minibatch]
        start, stop = stop, stop + owners[places.start : places.stop].count(rank)
        responses = lengths(places)[1]
        shares.append(
            MinibatchShare(
                start=start,
                stop=stop,
                counts=MinibatchCounts(num_tokens=sum(responses), num_rollouts=len(responses)),
                fillers=fillers(places),
                has_pictures=any(pictures[place] for place in places),
            )
        )
    return Division(
        mine=[place for place, owner in enumerate(owners) if owner == rank],
        minibatches=tuple(shares),
        fillers=fillers(everywhere),
    )
