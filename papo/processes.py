"""This process among others: whether it is one of several, and the signals that end its work.

Not here: what a command prints when it ends, and how it goes on (front_door.py).
"""

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""What ends a command: Ctrl-C, a scheduler that takes the machine back, and its warning some time before."""

# How launchers tell a process how many there are, and which of them it is.
_WORLDS = (
    ("torchrun", ("WORLD_SIZE",), ("RANK", "LOCAL_RANK")),
    # A step may have fewer tasks than the job that it belongs to.
    ("srun", ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"), ("SLURM_PROCID",)),
    ("Open MPI", ("OMPI_COMM_WORLD_SIZE",), ("OMPI_COMM_WORLD_RANK",)),
    ("MPI", ("PMI_SIZE",), ("PMI_RANK",)),
)


def require_one_process(environment: Mapping[str, str]) -> None:
    """Refuses to be one of several processes: each would do the whole work, in the same folder.

    A shell or a job of one task in an allocation of several is one process.

    Args:
        environment: variables, as the launcher set them.

    Raises:
        ValueError: names the launcher, its variable and what to start instead.
    """
    for launcher, sizes, ranks in _WORLDS:
        size = next((name for name in sizes if name in environment), None)
        rank = next((name for name in ranks if name in environment), None)
        if size is None or rank is None or not environment[size].isdecimal():
            continue
        if int(environment[size]) > 1:
            raise ValueError(
                f"this is one process of {environment[size]} that {launcher} started ({size}="
                f"{environment[size]}, {rank}={environment[rank]}), and each would do the whole work on "
                "its own. Start one: without torchrun or mpirun, with srun --ntasks=1 or #SBATCH "
                f"--ntasks=1; if {size} is left over from something else, unset it."
            )


class Interrupted(BaseException):
    """A signal asked for the end. No Exception: what goes on after errors does not go on after this.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
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
    theirs; outside the main thread nothing is handled.
    """
    replaced = {}
    if threading.current_thread() is threading.main_thread():
        for number in STOPPING:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
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
    """Within, SIGUSR1 waits for whoever saves, who looks at `stop_is_asked` and calls `stop`."""
    _Stop.postponed = True
    try:
        yield
    finally:
        _Stop.postponed = False
    if stop_is_asked():
        stop()


def stop_is_asked() -> bool:
    """Whether a signal was postponed, or lost (Python drops what is raised in `__del__`)."""
    return _Stop.received is not None


def stop() -> None:
    """Ends the work, now that it is saved.

    Raises:
        Interrupted: always.
    """
    assert _Stop.received is not None
    _Stop.raised = True
    raise Interrupted(_Stop.received)


@contextmanager
def children_left_alone() -> Iterator[None]:
    """Processes that are started within never hear a signal of `STOPPING`.

    A terminal and a scheduler send it to all processes of a job; a worker that it ended would look as
    if its work had failed. A mask is inherited before the child's first instruction, unlike a handler.
    """
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
    if number == signal.SIGUSR1 and _Stop.postponed:
        return
    _Stop.raised = True
    raise Interrupted(number)
