"""Which of several processes this is, as the launcher that started it says, and how one hears that another failed.

What they tell one another is papo.parallel's.
"""

from collections.abc import Mapping
from dataclasses import dataclass

# How launchers tell a process how many there are, and which of them it is.
_LAUNCHERS = (
    ("torchrun", ("WORLD_SIZE",), ("RANK", "LOCAL_RANK")),
    # Its executor for one machine, without SLURM.
    ("submitit", ("SUBMITIT_LOCAL_NTASKS",), ("SUBMITIT_LOCAL_GLOBALID",)),
    # A step may have fewer tasks than the job that it belongs to.
    ("srun", ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"), ("SLURM_PROCID",)),
    ("Open MPI", ("OMPI_COMM_WORLD_SIZE",), ("OMPI_COMM_WORLD_RANK",)),
    ("MPI", ("PMI_SIZE",), ("PMI_RANK",)),
)
_JOINED = ("torchrun", "submitit", "srun")
_LOCAL_RANKS = ("LOCAL_RANK", "SUBMITIT_LOCAL_LOCALID", "SLURM_LOCALID")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The processes that were started together, seen from one of them.

    Attributes:
        launcher: who started them.
        size: how many there are; at least 2.
        rank: which of them this is, from 0.
        local_rank: which of those on this machine it is, from 0: the index of its GPU.
        variables: the two variables that say so, as NAME=VALUE.
    """

    launcher: str
    size: int
    rank: int
    local_rank: int
    variables: str


def world_of(environment: Mapping[str, str]) -> World | None:
    """Returns the processes that this one is started with; None where it is alone.

    A shell or a job of one task in an allocation of several is one process.

    Args:
        environment: variables, as the launcher set them.
    """
    for launcher, sizes, ranks in _LAUNCHERS:
        size = next((name for name in sizes if name in environment), None)
        rank = next((name for name in ranks if name in environment), None)
        if size is None or rank is None or not environment[size].isdecimal():
            continue
        if int(environment[size]) > 1:
            local = next((environment[name] for name in _LOCAL_RANKS if name in environment), "0")
            return World(
                launcher=launcher,
                size=int(environment[size]),
                rank=int(environment[rank]),
                local_rank=int(local),
                variables=f"{size}={environment[size]}, {rank}={environment[rank]}",
            )
    return None


def require_one_process(environment: Mapping[str, str]) -> None:
    """Refuses to be one of several processes: each would do the whole work, in the same folder.

    Raises:
        ValueError: names the launcher, its variable and what to start instead.
    """
    if world := world_of(environment):
        raise ValueError(
            f"this is one process of {world.size} that {world.launcher} started ({world.variables}), and "
            "each would do the whole work on its own. Start one: without torchrun or mpirun, with srun "
            f"--ntasks=1 or #SBATCH --ntasks=1; if {world.variables.partition('=')[0]} is left over from "
            "something else, unset it."
        )


def require_joinable(world: World) -> None:
    """Raises ValueError where the launcher does not say how its processes find one another."""
    if world.launcher not in _JOINED:
        raise ValueError(
            f"the processes of a run are started by torchrun or srun; got {world.launcher} "
            f"({world.variables}). Start them with torchrun --nproc_per_node=N, or srun --ntasks-per-node=N."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a run of several processes ends.

    Attributes:
        rank: where it began.
        reason: in one line.
        signal: the number of the signal that ended it; None where an error did.
        is_known: whether that rank has said so itself, to the user too.
    """

    rank: int
    reason: str
    signal: int | None = None
    is_known: bool = True

    def __str__(self) -> str:
        return f"rank {self.rank}: {self.reason}"


class PeerFailed(RuntimeError):
    """Another rank ended, so this one does.

    Args:
        failure: whose and why.
    """

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(str(failure))
