"""How often a run may go back, and to which of its checkpoints."""

from collections.abc import Iterable, Mapping
from typing import Any


class Rollbacks:
    """Chooses the newest checkpoint from before the collapse began, so many times.

    The cumulative sums of the detector date a change: it lies after the last rollout at which all of them were low.
    A checkpoint up to there is healthy, unless the run has left it by an earlier rollback.

    Args:
        max_rollbacks: an alarm after so many ends the run.
        quiet: the largest sum, over the limit that rings, of a rollout that counts as healthy.
        shrink: what a rollback multiplies the ceiling of steered weights by.

    Attributes:
        done: how many were made.
        quiet_until: the last rollout that counts as healthy; 0: none yet.
        ended: whether an alarm has ended the run.

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(self, *, max_rollbacks: int, quiet: float | int, shrink: float | int) -> None:
        if max_rollbacks < 0:
            raise ValueError(f"max_rollbacks is 0 or more; got {max_rollbacks}")
        if not 0 <= quiet < 1:
            raise ValueError(f"quiet is a share of the limit, 0 to below 1; got {quiet}")
        if not 0 <= shrink < 1:
            raise ValueError(f"shrink makes weights smaller: 0 to below 1; got {shrink}")
        self.max_rollbacks, self.quiet, self.shrink = max_rollbacks, quiet, shrink
        self.done = self.quiet_until = 0
        self.ended = False
        self._left: list[tuple[int, int]] = []

    def note(self, rollout: int, suspicion: float) -> None:
        """Notes a rollout after which the largest sum of the detector was this share of its limit."""
        if suspicion <= self.quiet:
            self.quiet_until = rollout

    def choose(self, checkpoints: Iterable[int]) -> int | None:
        """Returns the rollouts that the checkpoint to go back to follows; None where no healthy one is there."""
        healthy = (
            step
            for step in checkpoints
            if step <= self.quiet_until
            and not any(start < step < stop for start, stop in self._left)
        )
        return max(healthy, default=None)

    def went(self, *, back_to: int | None, rollout: int) -> None:
        """Counts a rollback after this rollout; from here on the run is as healthy as it was there."""
        self.done += 1
        self.ended = self.done > self.max_rollbacks
        if back_to is not None:
            self._left.append((back_to, rollout))
            self.quiet_until = rollout

    def state_dict(self) -> dict[str, Any]:
        """Returns what `load_state_dict` goes on from, in plain values."""
        return {
            "done": self.done,
            "quiet_until": self.quiet_until,
            "ended": self.ended,
            "left": [list(each) for each in self._left],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on exactly where `state_dict` was taken."""
        self.done, self.quiet_until = int(state["done"]), int(state["quiet_until"])
        self.ended = bool(state["ended"])
        self._left = [(start, stop) for start, stop in state["left"]]
