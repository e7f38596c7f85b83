"""A run on several processes: the only place that knows torch.distributed.

Prompts are dealt by position, never by rank, so the number of processes changes nothing but the time.
"""

from papo.parallel.deal import deal
from papo.parallel.join import joined
from papo.parallel.launch import launch
from papo.parallel.ranks import Ranks, RanksDiffer
from papo.parallel.watch import Failure, PeerFailed, reason_of
from papo.parallel.world import World, require_one_process, world_of

__all__ = [
    "Failure",
    "PeerFailed",
    "Ranks",
    "RanksDiffer",
    "World",
    "deal",
    "joined",
    "launch",
    "reason_of",
    "require_one_process",
    "world_of",
]
