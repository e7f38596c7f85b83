"""Worker processes that grade answers under a deadline, and their life cycle.

A worker is started on first use, imports the graders once and is reused. One that does not answer in
time is killed and replaced, and its answer counts as wrong. One that ends for another reason (killed
from outside, or by the answer itself) is replaced and the answer graded once more; if that ends a
worker too, the answer is to blame and counts as wrong.
The two sides exchange JSON lines: nothing a worker sends is more than a verdict.
"""

import atexit
import enum
import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from papo.machine.signals import children_left_alone

logger = logging.getLogger(__name__)

WORKER_MEMORY_BYTES = 2 * 1024**3
_START_SECONDS = 120.0
# A worker counts its own processor time; the wall clock only catches one that does not run at all.
_WALL_SECONDS_PER_CPU_SECOND = 10.0
_MAX_REPLY_BYTES = 65_536
_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR")


class Verdict(enum.Enum):
    """What became of one grading. Only CORRECT earns anything."""

    CORRECT = "correct"
    WRONG = "wrong"
    TIMEOUT = "timeout"
    CRASH = "crash"


@dataclass(frozen=True, slots=True)
class Grading:
    """One question to a worker: does `answer` equal `reference`, says the grader of this name."""

    grader: str
    answer: str
    reference: str


class GradingPool:
    """Grades with up to `num_workers` processes, each item within `deadline_seconds`.

    Args:
        num_workers: processes that grade at the same time.
        deadline_seconds: processor time one grading may take before its worker is killed.
        section: where these settings stand in the configuration; messages name keys of it.

    Attributes:
        retries: gradings that were asked again because their worker had ended, over all calls.

    Raises:
        ValueError: there is no worker, or no time.
    """

    def __init__(
        self, *, num_workers: int, deadline_seconds: float, section: str = "reward"
    ) -> None:
        if num_workers < 1:
            raise ValueError(
                f"grading runs in worker processes, so it needs at least 1; got "
                f"num_workers={num_workers}. Set {section}.num_workers."
            )
        if not 0.0 < deadline_seconds < float("inf"):
            raise ValueError(
                f"a grading needs a positive, finite deadline; got "
                f"deadline_seconds={deadline_seconds}. Set {section}.deadline_seconds."
            )
        self._num_workers = num_workers
        self._deadline_seconds = deadline_seconds
        self._workers: list[_Worker] = []
        self._owner = os.getpid()
        self.retries = 0

    def grade(self, gradings: Sequence[Grading]) -> list[Verdict]:
        """Returns one verdict per grading, in their order.

        Raises:
            RuntimeError: a worker cannot be started (a grader's package is missing or broken).
        """
        if self._owner != os.getpid():
            # Forked: the pipes belong to the parent; this process starts workers of its own.
            self._workers, self._owner = [], os.getpid()
        verdicts: dict[int, Verdict] = {}
        retried: set[int] = set()
        waiting = deque(enumerate(gradings))
        try:
            self._drop_dead_workers()
            while len(self._workers) < min(self._num_workers, len(waiting)):
                self._workers.append(_start_worker(self._deadline_seconds))
            with selectors.DefaultSelector() as selector:
                for worker in self._workers:
                    worker.give_next(waiting, selector)
                while len(verdicts) < len(gradings):
                    self._collect(selector, waiting, verdicts, retried)
        except BaseException:
            # An interrupted worker would answer the next call with a verdict of this one.
            self.close()
            raise
        return [verdicts[index] for index in range(len(gradings))]

    def grade_once(self, gradings: Iterable[Grading]) -> dict[Grading, Verdict]:
        """Returns the verdict of each distinct grading.

        The responses to one problem often agree: ask once, and wait once for one that hangs.
        """
        distinct = list(dict.fromkeys(gradings))
        return dict(zip(distinct, self.grade(distinct), strict=True))

    def _drop_dead_workers(self) -> None:
        """A worker that was killed while idle must not cost the next answer its verdict."""
        for worker in [worker for worker in self._workers if not worker.is_alive()]:
            worker.kill()
            self._workers.remove(worker)

    def _collect(
        self,
        selector: selectors.BaseSelector,
        waiting: "deque[tuple[int, Grading]]",
        verdicts: dict[int, Verdict],
        retried: set[int],
    ) -> None:
        busy = [worker for worker in self._workers if worker.index is not None]
        patience = min(worker.give_up_at for worker in busy) - time.monotonic()
        ready = {key.data for key, _ in selector.select(max(0.0, patience))}
        for worker in busy:
            index = worker.index
            assert index is not None
            if worker in ready:
                verdict = worker.read_verdict()
            elif time.monotonic() >= worker.give_up_at:
                verdict = Verdict.TIMEOUT
            else:
                continue
            if verdict is None:
                continue
            selector.unregister(worker.replies)
            worker.index = None
            if verdict is Verdict.CRASH and index not in retried:
                retried.add(index)
                self.retries += 1
                logger.warning(
                    "a grading worker ended (%s); its answer is graded once more, retry number %d",
                    worker.ending(),
                    self.retries,
                )
                waiting.appendleft((index, worker.grading))
            else:
                verdicts[index] = verdict
                if verdict in (Verdict.TIMEOUT, Verdict.CRASH):
                    logger.warning(
                        "grading ended in a %s and counts as wrong: %.200r",
                        verdict.value,
                        worker.grading.answer,
                    )
            if verdict in (Verdict.TIMEOUT, Verdict.CRASH):
                worker.kill()
                self._workers.remove(worker)
                if not waiting:
                    continue
                worker = _start_worker(self._deadline_seconds)
                self._workers.append(worker)
            worker.give_next(waiting, selector)

    def close(self) -> None:
        """Ends all workers and waits until they are gone; the next `grade` starts new ones."""
        if self._owner == os.getpid():
            for worker in self._workers:
                worker.kill()
        self._workers = []

    def __enter__(self) -> "GradingPool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Missing when __init__ refused its arguments.
        if getattr(self, "_workers", None):
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        """A copy (pickle, deepcopy) starts its own workers."""
        return {**self.__dict__, "_workers": []}


class _KilledAtStart(RuntimeError):
    """Something outside ended a worker before it could say whether it works."""


def _start_worker(deadline_seconds: float) -> "_Worker":
    if not hasattr(signal, "setitimer"):
        raise ValueError(
            "an answer is graded in a process with a deadline and a limit of memory, and this system (Windows) has "
            "neither. Use WSL or Linux; reward=lab and benchmark=lab grade without."
        )
    try:
        return _Worker(deadline_seconds)
    except _KilledAtStart as error:
        logger.warning("%s Another one is started.", error)
        return _Worker(deadline_seconds)


class _Worker:
    """One grading process and what it is busy with."""

    def __init__(self, deadline_seconds: float) -> None:
        # A worker that a signal to the whole job ended would turn a right answer into a wrong one.
        with children_left_alone():
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    # Without -P a file `sympy.py` in the working directory would be imported.
                    "-P",
                    "-m",
                    "papo.rewards.grading_worker",
                    str(deadline_seconds),
                    str(WORKER_MEMORY_BYTES),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_worker_environment(os.environ),
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests = self._process.stdin
        self.replies = self._process.stdout
        os.set_blocking(self.replies.fileno(), False)
        self._patience = deadline_seconds * _WALL_SECONDS_PER_CPU_SECOND
        self._received = b""
        self.index: int | None = None
        self.give_up_at = 0.0
        self.grading = Grading("", "", "")
        self._owner = os.getpid()
        atexit.register(self._kill_at_exit)
        self._await_start()

    def give_next(
        self, waiting: "deque[tuple[int, Grading]]", selector: selectors.BaseSelector
    ) -> None:
        """Hands the worker the next waiting item, if any."""
        if not waiting:
            return
        self.index, grading = waiting.popleft()
        self.grading = grading
        self.give_up_at = time.monotonic() + self._patience
        request = {
            "grader": grading.grader,
            "answer": grading.answer,
            "reference": grading.reference,
        }
        try:
            self._requests.write(json.dumps(request).encode("ascii") + b"\n")
            self._requests.flush()
        except BrokenPipeError:
            # It died a moment ago; its end of file says so when the reply is read.
            logger.debug("a grading worker was gone before it was asked")
        selector.register(self.replies, selectors.EVENT_READ, self)

    def read_verdict(self) -> Verdict | None:
        """Returns the verdict; None while the line is incomplete."""
        message = self._read_line()
        if message is None:
            return None
        if message.get("correct") is True:
            return Verdict.CORRECT
        if message.get("correct") is False:
            return Verdict.WRONG
        self._process.wait(timeout=_START_SECONDS)
        out_of_time = self._process.returncode == -signal.SIGPROF
        return Verdict.TIMEOUT if out_of_time else Verdict.CRASH

    def ending(self) -> str:
        """How the process ended, in words for a log."""
        code = self._process.poll()
        if code is None:
            return "no answer"
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """Ends the process at once and reaps it. Harmless when it is gone already."""
        atexit.unregister(self._kill_at_exit)
        self._process.kill()
        self._process.wait()
        self.replies.close()
        try:
            self._requests.close()
        except BrokenPipeError:
            logger.debug("a grading worker ended with a request unread")

    def _kill_at_exit(self) -> None:
        # A forked child that exits must not take its parent's workers along.
        if self._owner == os.getpid():
            self.kill()

    def _await_start(self) -> None:
        stop_at = time.monotonic() + _START_SECONDS
        message: Mapping[str, Any] | None = None
        with selectors.DefaultSelector() as selector:
            selector.register(self.replies, selectors.EVENT_READ)
            while message is None and time.monotonic() < stop_at:
                if selector.select(max(0.0, stop_at - time.monotonic())):
                    message = self._read_line()
        if message == {}:
            self._process.wait(timeout=_START_SECONDS)
        killed = (self._process.poll() or 0) < 0
        if not message or not message.get("ready"):
            reason = (message or {}).get("failed", self.ending())
            self.kill()
            raise (_KilledAtStart if killed else RuntimeError)(
                f"a grading worker did not start: {reason}. It needs mathruler, math-verify, "
                "sympy and pylatexenc: pip install papo installs them."
            )

    def _read_line(self) -> Mapping[str, Any] | None:
        """Returns one message, {} at the end of the stream, None if there is no full line yet."""
        chunk = os.read(self.replies.fileno(), _MAX_REPLY_BYTES)
        self._received += chunk
        line, newline, rest = self._received.partition(b"\n")
        if not newline:
            return {} if not chunk else None
        self._received = rest
        message = json.loads(line)
        assert isinstance(message, dict)
        return message


def _worker_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Only what Python needs to start: a process that reads hostile text holds no secrets."""
    package_root = str(Path(__file__).resolve().parents[2])
    search_path = [package_root, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    kept = {name: environment[name] for name in _KEPT_ENVIRONMENT if name in environment}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(search_path),
        # sympy orders some terms by hash: the same verdict in every run.
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",
        "PYTHONWARNINGS": "ignore",
        "OMP_NUM_THREADS": "1",
    }
