"""Passes whose loss is not finite: the run stops before the update, on all ranks, and their batch is kept."""

from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from torch import Tensor

from papo.parallel import NoSharding, Ranks, Sharding
from papo.training.failures import NonFiniteLoss, write_batch
from papo.types import RolloutBatch, TokenScores


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BrokenPass:
    """What is not finite, and what it was computed from."""

    quantity: str
    value: float
    part: RolloutBatch
    scores: TokenScores | None


class BrokenPasses:
    """Stops a run whose loss is not finite.

    Args:
        folder: where the batch goes.
        ranks: that stop together.
        sharding: whether they are in a pass together.
    """

    def __init__(self, folder: Path, ranks: Ranks, sharding: Sharding | NoSharding) -> None:
        self.folder = folder
        self.ranks = ranks
        self.sharding = sharding
        self._first: BrokenPass | None = None

    def found(
        self,
        quantity: str,
        value: Tensor | float,
        part: RolloutBatch,
        scores: TokenScores | None,
        rollout_step: int,
    ) -> None:
        """Stops; where other ranks are in this pass, once all have made those of the minibatch."""
        if not self.sharding.passes_are_collective:
            self.stop(quantity, value, part, scores, rollout_step)
        self._first = self._first or BrokenPass(
            quantity=quantity, value=float(value), part=part, scores=scores
        )

    def stop_together(self, rollout_step: int) -> None:
        """Stops all ranks where a pass of one of them is broken."""
        broken = self._first
        if broken is not None:
            self._write(broken, rollout_step)
        everyone = self.ranks.gather(None if broken is None else broken.quantity)
        for rank, quantity in enumerate(everyone):
            if quantity is not None:
                raise NonFiniteLoss(
                    quantity=quantity,
                    rollout_step=rollout_step,
                    batch_file=self._file(rank, rollout_step),
                )

    def stop(
        self,
        quantity: str,
        value: Tensor | float,
        part: RolloutBatch,
        scores: TokenScores | None,
        rollout_step: int,
    ) -> NoReturn:
        """Stops this rank, which does not wait for others.

        Raises:
            NonFiniteLoss: always.
        """
        broken = BrokenPass(quantity=quantity, value=float(value), part=part, scores=scores)
        file = self._write(broken, rollout_step)
        raise NonFiniteLoss(quantity=quantity, rollout_step=rollout_step, batch_file=file)

    def _write(self, broken: BrokenPass, rollout_step: int) -> Path:
        file = self._file(self.ranks.rank, rollout_step)
        write_batch(file, {broken.quantity: broken.value}, broken.part, broken.scores)
        return file

    def _file(self, rank: int, rollout_step: int) -> Path:
        whose = f"_rank_{rank}" if self.ranks.size > 1 else ""
        return self.folder / f"rollout_{rollout_step + 1:06d}{whose}.pt"
