"""The signals that end the work of this process.

Not here: what a command prints when it ends, and how it goes on (papo/commands/front_door.py).
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Windows has neither.
POSTPONED = tuple(one for one in signal.Signals if one.name in ("SIGUSR1", "SIGUSR2"))
"""A scheduler's warning, some time before it takes the machine back; submitit asks for the second."""

STOPPING = (signal.SIGINT, signal.SIGTERM, *POSTPONED)
"""What ends a command: Ctrl-C, a scheduler that takes the machine back, and its warning some time before."""


class Interrupted(BaseException):
    """A signal asked for the end. No Exception: what goes on after errors does not go on after this.

    Args:
        number: of the signal.
        is_told: whether the user has been told already, by a process of this one.
    """

    def __init__(self, number: int, *, is_told: bool = False) -> None:
        self.signal = signal.Signals(number)
        self.is_told = is_told
        super().__init__(self.signal.name)

    @property
    def exit_code(self) -> int:
        """What a shell reports of a command that such a signal ended."""
        return 128 + self.signal


class _Stop:
    """Where this process stands between work and its end; signals belong to the whole process."""

    postponed = False
    received: int | None = None
    raised = False


@contextmanager
def interruptible() -> Iterator[None]:
    """Raises Interrupted when a signal of `STOPPING` comes, once: what follows is spent closing files.

    A second SIGINT kills. A signal that somebody handles already (a launcher's worker, nohup) stays
    theirs, but for a warning: it ends the work as well, and its handler is called afterwards (`hand_over`).
    Outside the main thread nothing is handled.
    """
    replaced = {}
    if threading.current_thread() is threading.main_thread():
        for number in STOPPING:
            found = signal.getsignal(number)
            is_default = found in (signal.SIG_DFL, signal.default_int_handler)
            if is_default or (number in POSTPONED and _is_foreign(found)):
                replaced[number] = signal.signal(number, _on_signal)
    if replaced:
        _Stop.postponed, _Stop.received, _Stop.raised = False, None, False
    try:
        yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)
        if replaced:
            _Stop.received, _Stop.raised = None, False


@contextmanager
def postponed_until_saved() -> Iterator[None]:
    """Within, a warning waits for whoever saves, who looks at `received_signal` and calls `stop`."""
    _Stop.postponed = True
    try:
        yield
    finally:
        _Stop.postponed = False
    if (number := received_signal()) is not None:
        stop(number)


def received_signal() -> int | None:
    """The signal that was postponed, or lost (Python drops what is raised in `__del__`)."""
    return _Stop.received


def stop(number: int) -> None:
    """Ends the work, now that it is saved, for a signal that this process or another rank received.

    Raises:
        Interrupted: always.
    """
    _Stop.raised = True
    raise Interrupted(number)


def hand_over(number: int) -> bool:
    """Calls the handler that somebody else had for a warning, once `interruptible` is left.

    A launcher's (submitit's) requeues the job and exits, which in the middle of the work would lose it. On other
    ranks than the first it returns.

    Returns:
        Whether there was one: what becomes of this process is its launcher's to say.
    """
    found = signal.getsignal(number)
    if number not in POSTPONED or not _is_foreign(found):
        return False
    assert callable(found)
    found(number, None)
    return True


def _is_foreign(handler: object) -> bool:
    """Whether somebody else's function handles a signal; SIG_IGN and SIG_DFL are no functions."""
    return (
        callable(handler) and not isinstance(handler, signal.Handlers) and handler is not _on_signal
    )


def is_ending() -> None:
    """From now on signals are ignored: this process ends already, and closes its files."""
    _Stop.raised = True


@contextmanager
def children_left_alone() -> Iterator[None]:
    """Processes that are started within never hear a signal of `STOPPING`.

    A terminal and a scheduler send it to all processes of a job; a worker that it ended would look as
    if its work had failed. A mask is inherited before the child's first instruction, unlike a handler.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _Stop.raised:
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        return
    _Stop.received = number
    if number in POSTPONED and _Stop.postponed:
        return
    _Stop.raised = True
    raise Interrupted(number)
