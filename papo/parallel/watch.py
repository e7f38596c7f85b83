"""No rank waits for one that is gone: each says why it ends, and hears within seconds why another did."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from types import FrameType

import torch.distributed as dist

from papo.machine.signals import Interrupted, is_ending
from papo.machine.world import Failure, PeerFailed

BEAT_SECONDS = 1.0
SILENT_SECONDS = 30.0
"""A rank that says nothing for so long has stopped, or its machine has."""

UNWIND_SECONDS = 3.0
"""What the main thread has to begin to end in; one that waits inside a collective never does."""

# Nobody sends it: its default is to be ignored.
_TOLD = getattr(signal, "SIGURG", signal.SIGTERM)  # Windows has none


# The store lives with rank 0 or its launcher; nothing else takes it away.
_STORE_GONE = Failure(rank=0, reason="it ended without a word", is_known=False)


class Watch:
    """A thread that shows that this rank lives, and ends it where another does not.

    The first failure of all is kept where all ranks see it. A rank that hears of it ends as after an error
    of its own: PeerFailed, or Interrupted where a signal was the reason, is raised in its main thread; where
    that thread is stuck, the process ends after `last_words`.

    Args:
        store: what all ranks reach; used by this object alone.
        rank: of this process.
        size: how many ranks there are.

    Attributes:
        last_words: called with the failure before the process is ended from outside its main thread.
    """

    def __init__(self, store: dist.Store, *, rank: int, size: int) -> None:
        self.store = store
        self.rank = rank
        self.size = size
        self.last_words: Callable[[Failure], None] = lambda failure: None
        self._told: Failure | None = None
        self._unwinding = False
        self._dead: int | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="papo-watch", daemon=True)

    def start(self) -> None:
        """Begins to watch. Call in the main thread."""
        self._before = signal.signal(_TOLD, self._on_told)
        self._thread.start()

    def stop(self) -> None:
        """Ends the watch; the others know that this rank is done. Call in the main thread."""
        self._unwinding = True
        self._stopped.set()
        self._thread.join()
        signal.signal(_TOLD, self._before)
        with suppress(RuntimeError):
            self.store.set(f"left/{self.rank}", "1")

    @property
    def is_ending(self) -> bool:
        """Whether this rank ends before the run does."""
        return self._unwinding

    def report(self, failure: Failure) -> None:
        """Tells all ranks of a failure; the first of the run is kept."""
        self._end_of_work()
        self._post(failure)

    def _post(self, failure: Failure) -> None:
        with suppress(RuntimeError):
            self.store.compare_set("failure", "", json.dumps(asdict(failure)))

    def failure(self) -> Failure | None:
        """The first failure of the run, where one was told."""
        if not self.store.check(["failure"]):
            return None
        return Failure(**json.loads(self.store.get("failure")))

    def first_failure(self) -> Failure | None:
        """As `failure`; None too where the ranks cannot be asked any more."""
        with suppress(RuntimeError):
            return self.failure()
        return None

    def explain(self, error: BaseException) -> BaseException:
        """Returns why this rank ends: a rank that told, or fell silent, is the reason of what came after.

        Args:
            error: of a collective, whose peer may be gone; or a signal, which a launcher sends to all ranks
                once one has ended.
        """
        self._end_of_work()
        try:
            return self._explained(error)
        except RuntimeError:
            return ending(_STORE_GONE)

    def _explained(self, error: BaseException) -> BaseException:
        if isinstance(error, Interrupted):
            self.store.set(f"stopped/{self.rank}", "1")
        deadline = time.monotonic() + UNWIND_SECONDS
        before = self._beats()
        while time.monotonic() < deadline:
            if failure := self.failure():
                return error if failure.rank == self.rank else ending(failure)
            if all(self.store.check([f"stopped/{rank}"]) for rank in range(self.size)):
                return error
            time.sleep(0.1)
        after = self._beats()
        for rank in range(self.size):
            if rank != self.rank and before[rank] == after[rank] and not self._has_left(rank):
                self._dead = rank
                self.report(Failure(rank=rank, reason="it ended without a word", is_known=False))
                return ending(self.failure())
        return error

    def _end_of_work(self) -> None:
        self._unwinding = True
        is_ending()

    def wait_until_others_left(self, seconds: float) -> None:
        """Waits: rank 0 may hold what the others read the reason from."""
        deadline = time.monotonic() + seconds
        others = [rank for rank in range(self.size) if rank not in (self.rank, self._dead)]
        with suppress(RuntimeError):
            while time.monotonic() < deadline and not all(map(self._has_left, others)):
                time.sleep(0.05)

    def _watch(self) -> None:
        heard = {rank: (0, time.monotonic()) for rank in self._watched()}
        while not self._stopped.wait(BEAT_SECONDS):
            try:
                self.store.add(f"beat/{self.rank}", 1)
                told = self.failure() or self._silent(heard)
            except RuntimeError:
                told = _STORE_GONE
            if told is not None and not self._unwinding:
                self._end(told)

    def _watched(self) -> range:
        """Rank 0 listens to all, and all to rank 0."""
        return range(1, self.size) if self.rank == 0 else range(1)

    def _silent(self, heard: dict[int, tuple[int, float]]) -> Failure | None:
        beats, now = self._beats(), time.monotonic()
        for rank, (beat, since) in heard.items():
            if beats[rank] != beat or self._has_left(rank):
                heard[rank] = (beats[rank], now)
            elif now - since > SILENT_SECONDS:
                self._dead = rank
                reason = f"silent for {SILENT_SECONDS:.0f} s"
                return Failure(rank=rank, reason=reason, is_known=False)
        return None

    def _beats(self) -> list[int]:
        return [self.store.add(f"beat/{rank}", 0) for rank in range(self.size)]

    def _has_left(self, rank: int) -> bool:
        return bool(self.store.check([f"left/{rank}"]))

    def _end(self, failure: Failure) -> None:
        if not failure.is_known:
            self._post(failure)
        self._told = failure
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, _TOLD)
        deadline = time.monotonic() + UNWIND_SECONDS
        while not self._unwinding:
            if time.monotonic() > deadline:
                self.last_words(failure)
                if not failure.is_known:
                    print(f"error: {failure}", file=sys.__stderr__, flush=True)
                os._exit(1 if failure.signal is None else 128 + failure.signal)
            time.sleep(0.05)

    def _on_told(self, number: int, frame: FrameType | None) -> None:
        if self._unwinding or self._told is None:
            return
        self._end_of_work()
        raise ending(self._told)


def ending(failure: Failure | None) -> BaseException:
    """What a rank raises that heard of a failure."""
    assert failure is not None, "one was told"
    return PeerFailed(failure) if failure.signal is None else Interrupted(failure.signal)


def reason_of(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    name = type(error).__name__
    return f"{name}: {text}" if text else name
