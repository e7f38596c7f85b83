"""The outside of the process that answers: gives each cell its time, and goes on with the next where one is lost."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

# Of importing torch and transformers and finding the device.
START_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A cell and the seconds it may take."""

    cell: str
    seconds: float


@dataclass(frozen=True, slots=True)
class _Ended:
    """The worker has closed its output."""


class Plan:
    """Asks cells in order until all have answered or the time is over.

    Args:
        budgets: the cells.
        command: starts a worker for the cells whose names it is given.
        answers: the file that gets a line per answer; lines are appended.
        seconds: of the whole plan.
        start_seconds: of a worker until its first cell, and of what it does between two.
        environment: variables of the worker.
    """

    def __init__(
        self,
        *,
        budgets: Sequence[Budget],
        command: Callable[[Sequence[str]], Sequence[str]],
        answers: Path,
        seconds: float,
        start_seconds: float = START_SECONDS,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._left = deque(budgets)
        self._command = command
        self._answers = answers
        self._start_seconds = start_seconds
        self._ends_at = time.monotonic() + seconds
        self._environment = {**os.environ, **(environment or {})}

    def run(self, **about: Any) -> None:
        """Runs the plan.

        Args:
            about: what the first line of the file says of the run.
        """
        self._answers.parent.mkdir(parents=True, exist_ok=True)
        with self._answers.open("a", encoding="utf-8") as file:
            _write(file, {"cell": "about", **about})
            while self._left:
                if time.monotonic() >= self._ends_at:
                    _write(file, {"cell": self._left.popleft().cell, "failed": "not asked: time"})
                    continue
                self._start_worker(file)

    def _start_worker(self, file: TextIO) -> None:
        """Runs one worker until its end or its cell's; what is left has not been asked."""
        log = self._answers.with_suffix(".log").open("a", encoding="utf-8")
        worker = subprocess.Popen(
            self._command([budget.cell for budget in self._left]),
            stdout=subprocess.PIPE,
            stderr=log,
            env=self._environment,
            text=True,
            # What it starts ends with it.
            start_new_session=True,
        )
        log.close()
        lines: queue.Queue[str | _Ended] = queue.Queue()
        threading.Thread(target=_read, args=(worker, lines), daemon=True).start()
        ended = False
        try:
            ended = self._listen(lines, file)
        finally:
            _end(worker, grace=10.0 if ended else 0.0)

    def _listen(self, lines: "queue.Queue[str | _Ended]", file: TextIO) -> bool:
        """Writes what the worker says; returns whether it ended by itself."""
        deadline = time.monotonic() + self._start_seconds
        is_asking = has_answered = False
        while True:
            try:
                line = lines.get(timeout=max(0.0, min(deadline, self._ends_at) - time.monotonic()))
            except queue.Empty:
                if is_asking:
                    self._give_up(file, "out of its time")
                elif not has_answered:
                    self._give_up(file, "the worker did not start")
                return False
            if isinstance(line, _Ended):
                # Between two cells it ends where the device is lost; the next cell has another try.
                if is_asking or (self._left and not has_answered):
                    self._give_up(file, "its process ended; the log beside the answers says why")
                return True
            answer = json.loads(line)
            if answer.get("event") == "start":
                assert answer["cell"] == self._left[0].cell, "cells are asked in order"
                deadline, is_asking = time.monotonic() + self._left[0].seconds, True
            elif answer.get("event") == "end":
                self._left.popleft()
                deadline = time.monotonic() + self._start_seconds
                is_asking, has_answered = False, True
            _write(file, answer)

    def _give_up(self, file: TextIO, reason: str) -> None:
        _write(file, {"cell": self._left.popleft().cell, "failed": reason})


def worker_command(size: str, experiment: str) -> Callable[[Sequence[str]], list[str]]:
    """How the cells of this folder are asked."""
    return lambda names: [
        *(sys.executable, "-m", "benchmarks.gpu.worker", size, experiment),
        *names,
    ]


def _read(worker: "subprocess.Popen[str]", lines: "queue.Queue[str | _Ended]") -> None:
    assert worker.stdout is not None
    with worker.stdout:
        for line in worker.stdout:
            lines.put(line)
    lines.put(_Ended())


def _end(worker: "subprocess.Popen[str]", *, grace: float) -> None:
    """Ends the worker, and all that it has started and not ended."""
    with suppress(subprocess.TimeoutExpired):
        worker.wait(timeout=grace)
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def _write(file: TextIO, line: dict[str, Any]) -> None:
    """A line that is there even where the machine is taken away a moment later."""
    file.write(json.dumps(line) + "\n")
    file.flush()
    os.fsync(file.fileno())
    text = {key: value for key, value in line.items() if key != "rates"}
    print(json.dumps(text), flush=True)
