"""The process that grades: one JSON request per line on stdin, one JSON reply per line on stdout.

Run as `python -m papo.rewards.grading_worker CPU_SECONDS MEMORY_BYTES`. It may be handed anything a
model can write, so it gives up what it does not need: files cannot grow, memory is bounded, and a
profiling timer kills it from the kernel once one request has used CPU_SECONDS of processor time.
It ends when stdin does, that is, when its parent is gone.
"""

import json
import os
import signal
import sys
from typing import TextIO


def main(cpu_seconds: float, memory_bytes: int) -> None:
    """Answers requests until stdin ends."""
    replies = _take_stdout()
    try:
        from papo.rewards.graders import GRADERS

        # The first parse builds the grammar's tables and sympy's caches: not on a request's time.
        for grader in GRADERS.values():
            grader(r"\frac{1}{2}", r"\sqrt{2}")
    except Exception as error:
        _reply(replies, {"failed": f"{type(error).__name__}: {error}"})
        return
    _limit_resources(memory_bytes)
    _reply(replies, {"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        # SIGPROF is left at its default action, which ends the process even inside C code that
        # never returns to the interpreter. Processor time, not wall time: a busy machine must not
        # change a verdict.
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        try:
            correct = GRADERS[request["grader"]](request["answer"], request["reference"])
        except (Exception, RecursionError, MemoryError):
            correct = False
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        _reply(replies, {"correct": bool(correct)})


def _take_stdout() -> TextIO:
    """Returns the pipe to the parent; what libraries print from now on goes nowhere."""
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    return replies


def _limit_resources(memory_bytes: int) -> None:
    import resource

    for limit, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        _, hard = resource.getrlimit(limit)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(limit, (value, value))


def _reply(replies: TextIO, message: dict[str, bool | str]) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
