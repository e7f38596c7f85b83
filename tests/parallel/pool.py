"""Runs a function on the ranks of a small run: processes forked from one that has imported everything."""

import gc
import multiprocessing
import os
import socket
import traceback

import lab_module

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "lightning.pytorch",
        "papo.commands.evaluate",
        "papo.commands.train",
        "papo.lab",
        "papo.masking",
        "papo.models",
        "papo.objective",
        "papo.rollout",
        "papo.training",
    ]
)


class RankFailed(AssertionError):
    """A rank ended otherwise than its case says."""


def on_ranks(function, *arguments, size=2, timeout=120):
    """Returns what `function(ranks, *arguments)` returned on every rank, by rank.

    Raises:
        RankFailed: with the traceback of a rank that failed, or the rank that never answered.
    """
    results = outcomes(function, *arguments, size=size, timeout=timeout)
    for rank, (kind, value) in enumerate(results):
        if kind != "returned":
            raise RankFailed(f"rank {rank} {kind}: {value}")
    return [value for _, value in results]


def outcomes(function, *arguments, size=2, timeout=120):
    """What became of each rank: ("returned", value), ("raised", text) or ("ended", exit code)."""
    port = free_port()
    processes, pipes = [], []
    for rank in range(size):
        mine, theirs = CONTEXT.Pipe()
        process = CONTEXT.Process(
            target=_be_rank,
            args=(theirs, function, arguments, rank, size, port, lab_module.default_config()),
            daemon=True,
        )
        process.start()
        theirs.close()
        processes.append(process)
        pipes.append(mine)
    try:
        return [_outcome(*pair, timeout) for pair in zip(processes, pipes, strict=True)]
    finally:
        for process in processes:
            process.kill()
            process.join()


def free_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def _outcome(process, pipe, timeout):
    try:
        if not pipe.poll(timeout):
            return "ended", f"nothing within {timeout} s"
        return pipe.recv()
    except EOFError:
        process.join(timeout)
        return "ended", process.exitcode


def _be_rank(pipe, function, arguments, rank, size, port, composed):
    import torch

    from papo.machine.signals import interruptible
    from papo.parallel import joined, world_of

    # A collection would look at, and so copy, every page of what was imported.
    gc.freeze()
    # Composing it anew is a seventh of a small run.
    lab_module.default_config = lambda: composed
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    try:
        with interruptible(), joined(world_of(os.environ)) as ranks:
            result = function(ranks, *arguments)
        pipe.send(("returned", result))
    except BaseException as error:
        text = "".join(traceback.format_exception(error)[-2:])
        pipe.send(("raised", f"{type(error).__name__}: {error}\n{text}"))
