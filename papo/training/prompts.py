"""The order in which problems are seen: a stream addressed by position, so a cursor is its state."""

import torch

from papo.types import Problem, ProblemSource, derive_seed


class PromptStream:
    """An endless stream of problems: epoch after epoch, each in its own seeded order.

    What stands at a position depends on (seed, position) alone, so a resumed run needs to remember
    nothing but how many problems were drawn.

    Args:
        source: the training problems.
        seed: of the order.

    Raises:
        ValueError: the source is empty.
    """

    def __init__(self, *, source: ProblemSource, seed: int) -> None:
        if len(source) == 0:
            raise ValueError(
                "there is no problem to train on; every one was filtered out, or data= is empty"
            )
        self.source = source
        self.seed = seed
        self._last_order = (-1, torch.empty(0, dtype=torch.long))

    def take(self, position: int, count: int) -> list[Problem]:
        """Returns the problems at `position` to `position + count - 1`."""
        return [self.source[self.index(p)] for p in range(position, position + count)]

    def index(self, position: int) -> int:
        """Returns which problem of the source stands at a position."""
        epoch, offset = divmod(position, len(self.source))
        # Read and written in one step: threads ask.
        of_epoch, order = self._last_order
        if epoch != of_epoch:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
            order = torch.randperm(len(self.source), generator=generator)
            self._last_order = (epoch, order)
        return int(order[offset])
