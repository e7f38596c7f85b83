"""Lets a long-lived process do one step at a time when told to, and say how long it took.

Other trainers need their own environments, so a comparison runs between processes; taking turns step
by step keeps it interleaved. Standard library only: it is loaded in every environment.
"""

import json
import os
import sys
import time
from typing import Any


class Turnstile:
    """The inside of a contestant: waits for a line on stdin, answers one line of JSON.

    Whatever else the process prints goes to stderr.
    """

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._started = 0.0

    def say(self, **content: Any) -> None:
        self._answers.write(json.dumps(content) + "\n")
        self._answers.flush()

    def wait(self) -> None:
        """Returns when a step is wanted and starts the clock.

        Raises:
            SystemExit: no further step is wanted.
        """
        if sys.stdin.readline().strip() != "step":
            raise SystemExit(0)
        self._started = time.thread_time()

    def finish(self, **content: Any) -> None:
        self.say(seconds=time.thread_time() - self._started, **content)
