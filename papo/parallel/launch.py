"""Starts the processes of a run on this machine: PyTorch's elastic agent (torchrun), without its reports."""

import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from papo.machine.signals import POSTPONED
from papo.parallel.ranks import Ranks


def check_processes(
    *,
    devices: object,
    num_nodes: object,
    section: str,
    group: str | None,
    script: str,
    ranks: Ranks,
) -> int:
    """Returns how many processes a command has, one per device.

    Args:
        devices: of each machine.
        num_nodes: machines.
        section: where the configuration has both, e.g. `trainer.`.
        group: the choice of a group that has both; None where the configuration has them anyway.
        script: the command, for messages.
        ranks: those that are there already; one may start the others of its machine.

    Raises:
        ValueError: impossible numbers, or others than were started.
    """
    for name, value in (("devices", devices), ("num_nodes", num_nodes)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{section}{name} is a whole number of at least 1; got {value!r}")
    assert isinstance(devices, int)
    assert isinstance(num_nodes, int)
    size = devices * num_nodes
    if ranks.size not in (1, size):
        raise ValueError(
            f"{ranks.size} processes were started, and {section}devices={devices} on {num_nodes} machines are "
            f"{size}. Start as many, or set {f'{group} ' if group else ''}{section}devices={ranks.size} (on several machines: devices of "
            f"each, and {section}num_nodes)."
        )
    if ranks.size == 1 and num_nodes > 1:
        raise ValueError(
            f"this machine cannot start the processes of {num_nodes}; on each of them: torchrun --nnodes="
            f"{num_nodes} --nproc_per_node={devices} --rdzv_backend=c10d --rdzv_endpoint=HOST:PORT {script} "
            f"..., or under SLURM: srun python {script} ... (docs/scale.md)"
        )
    return size


def launch(command: Sequence[str], *, processes: int, variables: Mapping[str, str]) -> int:
    """Runs a Python program in several processes, to the end of all; returns the worst exit code.

    The processes speak for themselves. One that fails ends the others; signals go to all.

    Args:
        command: the script and its arguments.
        processes: how many.
        variables: of the environment, for them.
    """
    # What failed, the processes say.
    for name in logging.root.manager.loggerDict:
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id="papo",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    # PyTorch would print the frames of its C++ for every connection that a rank has closed.
    with _environment({"TORCH_CPP_LOG_LEVEL": "ERROR", **variables}), _signals_passed_on():
        try:
            elastic_launch(config, sys.executable)(*command)
        except ChildFailedError as error:
            codes = {_exit_code(one.exitcode) for one in error.failures.values()}
            # With SIGTERM the agent ends those that are left.
            return max(codes - {128 + signal.SIGTERM} or codes)
        except SignalException as stop:
            return 128 + int(stop.sigval)
    return 0


def _exit_code(code: int) -> int:
    """As a shell reports it."""
    return code if code >= 0 else 128 - code


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _signals_passed_on() -> Iterator[None]:
    """The agent ends its processes at SIGINT and SIGTERM; what only warns is theirs to act upon."""

    def pass_on(number: int, frame: object) -> None:
        for child in _children():
            os.kill(child, number)

    everyone = (*POSTPONED, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    before = {number: signal.getsignal(number) for number in everyone}
    for number in POSTPONED:
        signal.signal(number, pass_on)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _children() -> list[int]:
    """The processes that this one started, where the system says so (Linux)."""
    file = Path(f"/proc/self/task/{os.getpid()}/children")
    return [int(child) for child in file.read_text("utf-8").split()] if file.exists() else []
