"""A run on several processes: the only place that knows torch.distributed.

Prompts are dealt by position, never by rank, so the number of processes changes nothing but the time.
"""

from papo.machine.world import Failure, require_one_process, world_of
from papo.parallel.deal import deal
from papo.parallel.device import asks_for_gpu, device_of_process
from papo.parallel.join import joined
from papo.parallel.launch import check_processes, launch
from papo.parallel.ranks import Ranks, RanksDiffer
from papo.parallel.sharding import (
    NoSharding,
    Sharding,
    check_shard_size,
    full_tensor,
    local_tensor,
    shard_of,
    sharded_like,
)

__all__ = [
    "Failure",
    "NoSharding",
    "Ranks",
    "RanksDiffer",
    "Sharding",
    "asks_for_gpu",
    "check_processes",
    "check_shard_size",
    "deal",
    "device_of_process",
    "full_tensor",
    "joined",
    "launch",
    "local_tensor",
    "require_one_process",
    "shard_of",
    "sharded_like",
    "world_of",
]
