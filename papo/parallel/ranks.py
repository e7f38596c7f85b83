"""The processes of a run as one of them sees them: what they tell one another, and who writes.

A sum of gradients goes over the devices' own links (NCCL), everything else over gloo, as bytes that hold
tensors and plain values only: what comes from another process cannot run code either.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from papo.machine.signals import Interrupted
from papo.machine.world import Failure, PeerFailed
from papo.parallel.watch import Watch, ending, reason_of

Job = TypeVar("Job")
Result = TypeVar("Result")

BYTES_PER_SUM = 64 * 2**20
"""Gradients are summed in pieces of about so many bytes, so that no second copy of all is made."""


class RanksDiffer(ValueError):
    """What is the same on every rank of a sound run is not."""


class Ranks:
    """The processes of a run. One process is `Ranks()`: every method returns at once, without communication.

    Every method but `share` is collective: all ranks call the same ones in the same order.

    Args:
        rank: which process this is, from 0.
        size: how many there are.
        local_rank: which of those on this machine it is.
        watch: says why a collective failed.
    """

    def __init__(
        self, *, rank: int = 0, size: int = 1, local_rank: int = 0, watch: Watch | None = None
    ) -> None:
        self.rank = rank
        self.size = size
        self.local_rank = local_rank
        self._watch = watch

    def on_loss(self, last_words: Callable[[Failure], None]) -> None:
        """Has `last_words` called where another rank ended and this one is stuck waiting for it."""
        if self._watch is not None:
            self._watch.last_words = last_words

    def why(self, error: BaseException) -> BaseException:
        """Tells the other ranks why this one ends, and returns the reason: the first failure of the run."""
        if self._watch is None or isinstance(error, PeerFailed):
            return error
        if isinstance(error, Interrupted):
            error = self._watch.explain(error)
        if isinstance(error, PeerFailed):
            return error
        number = error.signal if isinstance(error, Interrupted) else None
        self._watch.report(Failure(rank=self.rank, reason=reason_of(error), signal=number))
        first = self._watch.first_failure()
        return error if first is None or first.rank == self.rank else ending(first)

    @contextmanager
    def ending_together(self) -> Iterator[None]:
        """Within, an error or a signal ends all ranks; what is raised is the first failure of the run."""
        try:
            yield
        except BaseException as error:
            if (why := self.why(error)) is not error:
                raise why from error
            raise

    def reports(self, error: BaseException) -> bool:
        """Whether this rank says and writes down how the run ended: the first that is still there."""
        if isinstance(error, PeerFailed) and not error.failure.is_known:
            return self.rank == (1 if error.failure.rank == 0 else 0)
        return self.writes

    @property
    def writes(self) -> bool:
        """Whether this process writes files and speaks; the others compute."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """The positions, of `count`, that are this rank's: consecutive, by rank, of lengths that differ by one.

        What is done at a position depends on the position alone, so the number of ranks changes nothing.
        """
        return range(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def gather(self, value: Any) -> list[Any]:
        """Returns what every rank gave, by rank.

        Args:
            value: tensors and plain values, in lists, tuples and dicts.
        """
        if self.size == 1:
            return [value]
        with self.explained():
            return self._gather(_packed(value))

    def _gather(self, mine: Tensor) -> list[Any]:
        lengths = [torch.zeros(1, dtype=torch.long) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(mine)]))
        longest = max(int(length) for length in lengths)
        padded = torch.nn.functional.pad(mine, (0, longest - len(mine)))
        received = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
        dist.all_gather(received, padded)
        return [
            _unpacked(part[: int(length)]) for part, length in zip(received, lengths, strict=True)
        ]

    def first(self, work: Callable[[], Result]) -> Result:
        """Rank 0 does the work, all get its result: of tensors and plain values."""
        if self.size == 1:
            return work()
        mine = _packed(work()) if self.rank == 0 else torch.empty(0, dtype=torch.uint8)
        length = torch.tensor([len(mine)])
        with self.explained():
            dist.broadcast(length, src=0)
            received = mine if self.rank == 0 else torch.zeros(int(length), dtype=torch.uint8)
            dist.broadcast(received, src=0)
        result: Result = _unpacked(received)
        return result

    def wait_for_all(self) -> None:
        """Returns once every rank has called it."""
        self.gather(None)

    def require_equal(self, values: dict[str, Any], *, remedy: str) -> None:
        """Compares plain values that must not depend on the rank.

        Raises:
            RanksDiffer: on every rank; names what differs, a rank that differs from rank 0, and both values.
        """
        everyone = self.gather(values)
        for rank, theirs in enumerate(everyone):
            for name in everyone[0] | theirs:
                here, there = everyone[0].get(name), theirs.get(name)
                if here != there:
                    raise RanksDiffer(
                        f"all ranks have the same {name}; rank 0 has {here!r} and rank {rank} has {there!r}. "
                        f"{remedy}"
                    )

    def in_turn(
        self,
        jobs: Iterable[Job],
        work: Callable[[Job], Result],
        *,
        shows: Callable[[Job], Any] = lambda job: None,
        remedy: str = "",
    ) -> Iterator[Result]:
        """Yields the result of every job, in their order, on all ranks; each job is done by one rank.

        Job i is done by rank i modulo their number, so that all come about equally far, and results are
        yielded once every rank has done one.

        Args:
            jobs: the same on all ranks; made one after another, and not kept.
            work: does one; its result is of tensors and plain values, and does not depend on the rank.
            shows: what of a job all ranks must agree on.
            remedy: what to do where they do not.

        Raises:
            RanksDiffer: the jobs are not the same on all ranks.
        """
        if self.size == 1:
            yield from map(work, jobs)
            return
        shown: list[Any] = []
        mine: list[Result] = []
        for number, job in enumerate(jobs):
            shown.append(shows(job))
            if number % self.size == self.rank:
                mine.append(work(job))
            if len(shown) == self.size:
                yield from self._results(shown, mine, remedy)
                shown, mine = [], []
        yield from self._results(shown, mine, remedy)

    def _results(self, shown: list[Any], mine: list[Result], remedy: str) -> list[Result]:
        self.require_equal({"work to do": shown}, remedy=remedy)
        return [result for results in self.gather(mine) for result in results]

    def sum_numbers(self, numbers: dict[str, float]) -> dict[str, float]:
        """Adds numbers by name, in the order of the ranks; a rank may lack some."""
        total: dict[str, float] = {}
        for part in self.gather(numbers):
            for name, value in part.items():
                total[name] = total.get(name, 0.0) + value
        return total

    @torch.no_grad()
    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Gives every rank the sum of all ranks' gradients.

        A parameter has a gradient afterwards where any rank had one: an optimiser leaves a parameter without
        one alone, and would decay one whose gradient is zero.
        """
        if self.size == 1:
            return
        had = torch.tensor([parameter.grad is not None for parameter in parameters])
        anywhere = torch.stack(self.gather(had)).any(dim=0).tolist()
        wanted = [p for p, is_wanted in zip(parameters, anywhere, strict=True) if is_wanted]
        for parameter in wanted:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in wanted if parameter.grad is not None]
        for piece in _pieces(gradients):
            flat = torch.cat([gradient.flatten() for gradient in piece])
            with self.explained():
                dist.all_reduce(flat)
            sums = flat.split([gradient.numel() for gradient in piece])
            for gradient, total in zip(piece, sums, strict=True):
                gradient.copy_(total.view_as(gradient))

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Within, a collective that failed names the rank that is gone."""
        try:
            yield
        except RuntimeError as error:
            if self._watch is None or isinstance(error, PeerFailed):
                raise
            raise self._watch.explain(error) from error


def _pieces(gradients: Sequence[Tensor]) -> list[list[Tensor]]:
    """Cuts a list of tensors, in order, into lists of one type and about `BYTES_PER_SUM` bytes."""
    pieces: list[list[Tensor]] = []
    size = 0
    for gradient in gradients:
        if not pieces or size >= BYTES_PER_SUM or pieces[-1][0].dtype != gradient.dtype:
            pieces.append([])
            size = 0
        pieces[-1].append(gradient)
        size += gradient.nbytes
    return pieces


def _packed(value: Any) -> Tensor:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return torch.frombuffer(bytearray(buffer.getbuffer()), dtype=torch.uint8)


def _unpacked(packed: Tensor) -> Any:
    return torch.load(io.BytesIO(packed.numpy().tobytes()), weights_only=True, map_location="cpu")
