"""Trains a policy with PAPO: `python train.py`, `python train.py +experiment=papo_geo3k`, ...

Composes conf/train.yaml; training/job.py checks every setting before anything is loaded, builds the parts, trains,
and ends with a table. The algorithm is papo/training/collect.py and papo/training/module.py.
"""

from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from papo.commands import front_door


def saved_rollouts(folder: Path) -> str:
    """Says how far the run in a folder can be continued from."""
    from papo.training import newest_checkpoint

    newest = newest_checkpoint(folder / "checkpoints")
    return f"is saved up to {newest.stem}" if newest else "holds no checkpoint yet"


@front_door.clear_errors(reached=saved_rollouts, resumes_alone=True, on_ranks=True)
def task(config: DictConfig, ranks: Any) -> float:
    """One run, or one rank of it. Returns the mean reward of the last rollout, for sweepers."""
    # A line that Hydra refuses is answered before torch and its like are loaded.
    from papo.commands.training.job import train

    return train(config, ranks)


# A launcher's process finds `task` by its name; a function without one it would get as a copy, with the state
# of this process.
main = hydra.main(config_path=front_door.CONFIG_FOLDER, config_name="train", version_base="1.3")(
    task
)
