"""How a batch is cut into parts of whole groups: minibatches, and the passes a minibatch is made of.

The order of the groups never changes, so terms and gradients add up to the same whatever the cut.
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from papo.machine.out_of_memory import is_out_of_memory, release_memory
from papo.storage.files import read_object, write_atomically
from papo.training.failures import GroupDoesNotFit, PassDoesNotFit
from papo.types import RolloutBatch

_log = logging.getLogger(__name__)

Result = TypeVar("Result")


def trim(batch: RolloutBatch) -> RolloutBatch:
    """The batch padded only to its own longest response."""
    longest = int(batch.response_mask.any(dim=0).nonzero().max()) + 1
    tokenwise = (
        *("response_ids", "response_mask", "old_logprobs", "ref_logprobs", "behaviour_logprobs"),
        *("advantages", "flagged"),
    )
    return replace(
        batch,
        old_views={
            view: scores.map(lambda values: values[:, :longest])
            for view, scores in batch.old_views.items()
        },
        term_weights={name: each[:, :longest] for name, each in batch.term_weights.items()},
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
    group that is larger by itself gets a pass of its own, and a warning the first time. Where memory
    runs out, both are halved, down to one group, and stay so.

    Args:
        prompts: groups per pass; None where tokens are counted.
        tokens: of one view per pass; None where prompts are counted.
        count_tokens: how.
        retries: whether a pass that does not fit is done again at once; not where other ranks are in it.

    Attributes:
        halvings: how often both were halved so far; part of the state of a run.
    """

    def __init__(
        self,
        *,
        prompts: int | None,
        tokens: int | None,
        count_tokens: CountTokens,
        retries: bool = True,
    ) -> None:
        assert (prompts is None) != (tokens is None), "training_settings checks it"
        self.prompts = prompts
        self.tokens = tokens
        self.count_tokens = count_tokens
        self.retries = retries
        self.halvings = 0
        self._has_warned = False

    def __call__(self, batch: RolloutBatch) -> Iterator[RolloutBatch]:
        """Yields the passes of a batch, in order, each padded only to its own longest response."""
        for start, stop in self.bounds(*_lengths(batch)):
            yield trim(batch.select_groups(start, stop))

    def num_passes(
        self,
        prompt_lengths: Sequence[int],
        response_lengths: Sequence[int],
        owners: Sequence[int],
        num_ranks: int,
    ) -> list[int]:
        """Returns how many passes each rank makes over the groups that it owns; each owns at least one."""
        per_group = len(response_lengths) // len(prompt_lengths)
        counts = []
        for rank in range(num_ranks):
            own = [group for group, owner in enumerate(owners) if owner == rank]
            rows = [group * per_group + j for group in own for j in range(per_group)]
            prompts = [prompt_lengths[group] for group in own]
            counts.append(len(self.bounds(prompts, [response_lengths[row] for row in rows])))
        return counts

    def fillers(self, batch: RolloutBatch, number: int) -> Iterator[RolloutBatch]:
        """Yields the smallest pass over a batch so many times, for ranks that make fewer than others."""
        for _ in range(number):
            yield trim(batch.select_groups(0, 1))

    def retried(
        self, batch: RolloutBatch, attempt: Callable[[Iterator[RolloutBatch]], Result]
    ) -> Result:
        """Returns `attempt(passes)`, done again with smaller passes as often as memory runs out.

        Args:
            batch: what the passes are cut from.
            attempt: must begin anew when it is called again, and keep nothing of a failed call.

        Raises:
            GroupDoesNotFit: memory ran out in a pass over one group.
            PassDoesNotFit: it ran out in a larger one, and must not be tried again here.
        """
        while True:
            last: RolloutBatch | None = None

            def note(part: RolloutBatch) -> RolloutBatch:
                nonlocal last
                last = part
                return part

            try:
                return attempt(map(note, self(batch)))
            except RuntimeError as error:
                if not is_out_of_memory(error) or last is None:
                    raise
                if len(last.groups) == 1:
                    num_tokens = self.count_tokens(*_lengths(last))
                    raise GroupDoesNotFit(num_tokens=num_tokens, reason=error) from error
                reason = str(error).splitlines()[0]
            # Only here, where the exception and the tensors of its frames are gone.
            release_memory()
            self._halve(last)
            if not self.retries:
                raise PassDoesNotFit(
                    num_prompts=len(last.groups), passes=self._describe(), reason=reason
                )
            _log.warning(
                "out of memory in a pass over %d prompts; done again with %s, which stays for the rest "
                "of the run (%s)",
                len(last.groups),
                self._describe(),
                reason,
            )

    def _halve(self, failed: RolloutBatch) -> None:
        """Halves until the pass that failed is cut."""
        lengths = _lengths(failed)
        self.halvings += 1
        while len(self.bounds(*lengths)) == 1:
            self.halvings += 1

    def _describe(self) -> str:
        if self.tokens is None:
            return f"{self._halved(self.prompts)} prompts per pass"
        return f"{self._halved(self.tokens)} tokens per pass"

    def _halved(self, budget: int | None) -> int:
        assert budget is not None
        return max(budget >> self.halvings, 1)

    def bounds(
        self, prompt_lengths: Sequence[int], response_lengths: Sequence[int]
    ) -> list[tuple[int, int]]:
        """The first group of each pass and the one after its last."""
        num_groups = len(prompt_lengths)
        if self.tokens is None:
            prompts = self._halved(self.prompts)
            starts = range(0, num_groups, prompts)
            return [(start, min(start + prompts, num_groups)) for start in starts]
        budget = self._halved(self.tokens)
        num_responses = len(response_lengths) // num_groups

        def size(start: int, stop: int) -> int:
            rows = slice(start * num_responses, stop * num_responses)
            return self.count_tokens(prompt_lengths[start:stop], response_lengths[rows])

        bounds, start = [], 0
        for group in range(num_groups):
            if group > start and size(start, group + 1) > budget:
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


def write_halvings(file: Path, halvings: int) -> None:
    """Says how often a resumed run halves the passes that this one could not make."""
    write_atomically(file, json.dumps({"halvings": halvings}))


def read_halvings(file: Path) -> int:
    """How often passes are to be halved, as an earlier start found out; 0 where none did."""
    if not file.exists():
        return 0
    remedy = "Delete it: the run then finds out again how large its passes may be."
    return int(read_object(file, fields={"halvings": int}, remedy=remedy)["halvings"])
