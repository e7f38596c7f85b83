"""How a batch is cut into parts of whole groups: minibatches, and the passes a minibatch is made of.

The order of the groups never changes, so terms and gradients add up to the same whatever the cut.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from papo.types import RolloutBatch

_log = logging.getLogger(__name__)


def cut(batch: RolloutBatch, prompts_per_part: int) -> Iterator[RolloutBatch]:
    """Yields consecutive parts of whole groups, each padded only to its own longest response."""
    num_groups = batch.num_rollouts // batch.num_responses
    for start in range(0, num_groups, prompts_per_part):
        yield trim(batch.select_groups(start, start + prompts_per_part))


def trim(batch: RolloutBatch) -> RolloutBatch:
    """The batch padded only to its own longest response."""
    longest = int(batch.response_mask.any(dim=0).nonzero().max()) + 1
    tokenwise = ("response_ids", "response_mask", "old_logprobs", "ref_logprobs", "masked_logprobs")
    return replace(
        batch,
        **{
            name: value[:, :longest]
            for name in tokenwise
            if (value := getattr(batch, name)) is not None
        },
    )


CountTokens = Callable[[Sequence[int], Sequence[int]], int]
"""Tokens that one view of some groups sends through the model, from the lengths of their prompts and
of all their responses."""


def shared_prefix_tokens(prompt_lengths: Sequence[int], response_lengths: Sequence[int]) -> int:
    """Each prompt once, no padding."""
    return sum(prompt_lengths) + sum(response_lengths)


def repeated_prefix_tokens(prompt_lengths: Sequence[int], response_lengths: Sequence[int]) -> int:
    """Every response behind its own copy of the prompt, padding included."""
    return len(response_lengths) * (max(prompt_lengths) + max(response_lengths))


class MicrobatchCutter:
    """Cuts a batch into passes by a number of prompts or by a budget of tokens.

    By tokens, consecutive groups share a pass as long as `count_tokens` stays within the budget; a
    group that is larger by itself gets a pass of its own, and a warning the first time.

    Args:
        prompts: groups per pass; None where tokens are counted.
        tokens: of one view per pass; None where prompts are counted.
        count_tokens: how.
    """

    def __init__(
        self, *, prompts: int | None, tokens: int | None, count_tokens: CountTokens
    ) -> None:
        assert (prompts is None) != (tokens is None), "training_settings checks it"
        self.prompts = prompts
        self.tokens = tokens
        self.count_tokens = count_tokens
        self._has_warned = False

    def __call__(self, batch: RolloutBatch) -> Iterator[RolloutBatch]:
        """Yields the passes of a batch, in order, each padded only to its own longest response."""
        for start, stop in self.bounds(*_lengths(batch)):
            yield trim(batch.select_groups(start, stop))

    def bounds(
        self, prompt_lengths: Sequence[int], response_lengths: Sequence[int]
    ) -> list[tuple[int, int]]:
        """The first group of each pass and the one after its last."""
        num_groups = len(prompt_lengths)
        if self.tokens is None:
            assert self.prompts is not None
            starts = range(0, num_groups, self.prompts)
            return [(start, min(start + self.prompts, num_groups)) for start in starts]
        num_responses = len(response_lengths) // num_groups

        def size(start: int, stop: int) -> int:
            rows = slice(start * num_responses, stop * num_responses)
            return self.count_tokens(prompt_lengths[start:stop], response_lengths[rows])

        bounds, start = [], 0
        for group in range(num_groups):
            if group > start and size(start, group + 1) > self.tokens:
                bounds.append((start, group))
                start = group
            self._warn_if_larger(size(group, group + 1), self.tokens)
        return [*bounds, (start, num_groups)]

    def _warn_if_larger(self, size: int, budget: int) -> None:
        if size > budget and not self._has_warned:
            _log.warning(
                "a prompt and its responses have %d tokens, and training.tokens_per_microbatch is %d; "
                "a larger group gets a pass of its own",
                size,
                budget,
            )
            self._has_warned = True


def _lengths(batch: RolloutBatch) -> tuple[list[int], list[int]]:
    prompts = [group.prompt_ids.shape[0] for group in batch.groups]
    return prompts, batch.response_mask.sum(dim=1).tolist()
