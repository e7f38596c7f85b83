"""Counts what the processes of a run do and tell one another: `python -m benchmarks.scaling_ranks` prints JSON.

The run is `python train.py` on PerceptionLab, on one process and on two (gloo). Counted in each: tokens and passes of
its updates, forward; bytes that it received of other processes, by the collective that brought them.
"""

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

from benchmarks.measure import REPOSITORY
from papo.commands import front_door, train
from papo.parallel import launch, world_of
from papo.training import TrainingModule

HERE = {"PYTHONPATH": str(REPOSITORY)}
NUM_ROLLOUTS = 3
SETTINGS = (
    "objective=lab_papo_g",
    "safeguard=off",
    f"training.num_rollouts={NUM_ROLLOUTS}",
    "evaluation.num_problems=2",
    "evaluation.num_responses=1",
    "callbacks.rollout_table.every_rollouts=0",
)


def count(counts: Counter[str]) -> None:
    """Has this process count, from now on, what it does."""
    score = TrainingModule._score

    def scored(module: Any, part: Any) -> Any:
        counts["passes"] += 1
        counts["tokens"] += int(part.response_mask.sum())
        counts["tokens"] += sum(group.prompt_ids.shape[0] for group in part.groups)
        return score(module, part)

    TrainingModule._score = scored  # type: ignore[method-assign]
    all_gather, all_reduce = dist.all_gather, dist.all_reduce

    def gathered(outputs: list[Tensor], mine: Tensor) -> Any:
        counts["all_gather bytes"] += sum(one.nbytes for one in outputs) - mine.nbytes
        return all_gather(outputs, mine)

    def reduced(tensor: Tensor) -> Any:
        # A ring brings every piece twice, of all processes but this one.
        size = dist.get_world_size()
        counts["all_reduce bytes"] += 2 * tensor.nbytes * (size - 1) // size
        return all_reduce(tensor)

    dist.all_gather, dist.all_reduce = gathered, reduced


def be_rank(folder: Path) -> int:
    """One process of the run; leaves its counts in the folder."""
    counts: Counter[str] = Counter()
    count(counts)
    world = world_of(os.environ)
    size = 1 if world is None else world.size
    sys.argv = [
        "train.py",
        *SETTINGS,
        f"run_dir={folder / 'run'}",
        *((f"trainer.devices={size}",) if size > 1 else ()),
    ]
    code = front_door.command(train.main, on_ranks=True)
    rank = 0 if world is None else world.rank
    (folder / f"rank_{rank}.json").write_text(json.dumps(counts), "utf-8")
    return code


def counted_run(processes: int) -> list[dict[str, int]]:
    """The counts of every process of a run.

    Raises:
        RuntimeError: it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        code = launch([__file__, "--folder", folder], processes=processes, variables=HERE)
        if code:
            raise RuntimeError(f"a run on {processes} processes ended with {code}")
        return [
            json.loads((Path(folder) / f"rank_{rank}.json").read_text("utf-8"))
            for rank in range(processes)
        ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.folder is not None:
        sys.exit(be_rank(arguments.folder))
    runs = {"one": counted_run(1), "two": counted_run(2), "updates": NUM_ROLLOUTS}
    print(json.dumps(runs))


if __name__ == "__main__":
    main()
