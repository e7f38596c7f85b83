"""Several processes become the ranks of one run, and stop being them together."""

import os
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments import SLURMEnvironment

from papo.machine.world import World, require_joinable
from papo.parallel.device import own_gpu
from papo.parallel.ranks import Ranks
from papo.parallel.watch import Watch

JOIN_SECONDS = 300
"""A rank that is not there by then does not come."""

# Who is gone is noticed by the watch; a rank may wait for hours for one that evaluates.
_NO_TIMEOUT = timedelta(days=7)
_LEAVE_SECONDS = 8.0


@contextmanager
def joined(world: World | None) -> Iterator[Ranks]:
    """The ranks that this process is one of, for as long as the context lasts.

    An error or a signal that leaves the context ends all ranks: the others raise PeerFailed or Interrupted.

    Args:
        world: the processes that were started together; None for one process.

    Raises:
        ValueError: the launcher is none whose processes can find one another, or some never came.
        PeerFailed: another rank failed.
    """
    if world is None:
        yield Ranks()
        return
    require_joinable(world)
    store = _meet(world)
    # A connection of its own: the watch asks while the main thread waits.
    clone: dist.Store = store.clone()  # type: ignore[attr-defined]
    watch = Watch(clone, rank=world.rank, size=world.size)
    watch.start()
    ranks = Ranks(rank=world.rank, size=world.size, local_rank=world.local_rank, watch=watch)
    try:
        backend = "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(own_gpu(world.local_rank))
            backend = "cpu:gloo,cuda:nccl"
        dist.init_process_group(
            backend, store=store, rank=world.rank, world_size=world.size, timeout=_NO_TIMEOUT
        )
        yield ranks
        if not watch.is_ending:
            ranks.wait_for_all()
    except BaseException as error:
        # What a task has told already, it also reports.
        if watch.is_ending:
            raise
        if (reason := ranks.why(error)) is not error:
            raise reason from error
        raise
    finally:
        watch.stop()
        if dist.is_initialized():
            # A rank that waits for this one in a collective then learns that it is gone.
            dist.destroy_process_group()
        if world.rank == 0:
            # It may hold what the watches of the others still ask.
            watch.wait_until_others_left(_LEAVE_SECONDS)


def _meet(world: World) -> dist.Store:
    """Returns what all ranks reach, once all have."""
    _fill_in_addresses(os.environ, world)
    address, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    by_launcher = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    try:
        store: dist.Store = dist.TCPStore(
            address,
            int(port),
            world.size,
            is_master=world.rank == 0 and not by_launcher,
            timeout=timedelta(seconds=JOIN_SECONDS),
            wait_for_workers=False,
        )
    except (dist.DistNetworkError, dist.DistStoreError) as error:
        raise ValueError(
            f"the ranks of a run meet at MASTER_ADDR:MASTER_PORT={address}:{port}, and rank {world.rank} cannot: "
            f"{str(error).splitlines()[0]}. Set MASTER_PORT to a free port, the same for all ranks."
        ) from error
    # A launcher that starts its processes again keeps what the first ones left there.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(f"papo/{attempt}", store)
    store.set(f"here/{world.rank}", "1")
    try:
        store.wait([f"here/{rank}" for rank in range(world.size)], timedelta(seconds=JOIN_SECONDS))
    except dist.DistStoreError as error:
        missing = [rank for rank in range(world.size) if not store.check([f"here/{rank}"])]
        raise ValueError(
            f"{world.launcher} announced {world.size} processes, and after {JOIN_SECONDS} s rank "
            f"{', '.join(map(str, missing))} is not here; look at what it wrote, and start all again"
        ) from error
    return store


def _fill_in_addresses(environment: MutableMapping[str, str], world: World) -> None:
    """torchrun says where the ranks meet; elsewhere it follows from the job.

    Raises:
        ValueError: SLURM was not told how many tasks each machine has.
    """
    if world.launcher == "srun":
        try:
            slurm = SLURMEnvironment(auto_requeue=False)
        except RuntimeError as error:
            raise ValueError(" ".join(str(error).split())) from error
        environment.setdefault("MASTER_ADDR", slurm.main_address)
        environment.setdefault("MASTER_PORT", str(slurm.main_port))
    elif world.launcher == "submitit":
        # The job is one process here, whose number all its tasks know.
        port = 15000 + int(environment["SUBMITIT_LOCAL_JOB_ID"]) % 10000
        environment.setdefault("MASTER_ADDR", "127.0.0.1")
        environment.setdefault("MASTER_PORT", str(port))
