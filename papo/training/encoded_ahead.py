"""Prompts of the stream, read and encoded by threads: several at once, and before they are asked for.

Decoding, resizing and cutting a picture takes 12 to 51 ms, in which a GPU would wait. What stands at a
position depends on the position alone, so it does not matter when, or by which thread, it is read.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

from papo.training.prompts import PromptStream
from papo.types import Policy, Problem, PromptGroup

Encoded = tuple[Problem, PromptGroup]


class EncodedAhead:
    """Encodes prompts; with `workers` by so many threads, without in the call itself.

    Args:
        policy: encodes.
        prompts: the stream.
        workers: threads; 0: none.
        most: prompts that are held, or being made, before they are asked for; bounds memory.
    """

    def __init__(self, *, policy: Policy, prompts: PromptStream, workers: int, most: int) -> None:
        self.policy = policy
        self.prompts = prompts
        self.workers = workers
        self.most = most
        # Sources read files and tables whose libraries do not all allow two readers.
        self._reading = Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._begun: dict[int, Future[Encoded]] = {}

    def begin(self, positions: Iterable[int]) -> None:
        """Begins with the first `most` of these positions; what was begun beyond them is dropped."""
        if not self.workers:
            return
        wanted = list(positions)[: self.most]
        for position in self._begun.keys() - set(wanted):
            self._begun.pop(position).cancel()
        for position in wanted:
            if position not in self._begun:
                self._begun[position] = self._submit(position)

    def take(self, positions: Sequence[int]) -> list[Encoded]:
        """The prompts at these positions, in their order; waits for those that are not finished.

        Raises whatever reading or encoding the first bad one of them raises.
        """
        if not self.workers:
            return [self._encode(position) for position in positions]
        futures = [
            self._begun.pop(position) if position in self._begun else self._submit(position)
            for position in positions
        ]
        try:
            return [future.result() for future in futures]
        finally:
            # After an error, or a signal, nobody asks for the others.
            for future in futures:
                future.cancel()

    def close(self) -> None:
        """Ends the threads once each is done with the prompt in its hands."""
        self.begin(())
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def _submit(self, position: int) -> "Future[Encoded]":
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="papo-prompts")
        return self._pool.submit(self._encode, position)

    def _encode(self, position: int) -> Encoded:
        with self._reading:
            [problem] = self.prompts.take(position, 1)
        [group] = self.policy.encode([problem])
        return problem, group
