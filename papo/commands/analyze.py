"""Says what wrong answers got wrong: `python analyze.py runs=[BEFORE,AFTER]`.

Composes conf/analyze.yaml; analysis.py reads evaluation folders (of a training run it makes one first), draws a sample of
wrong answers, lets every labeller that knows enough label it, and ends with a table.
"""

import hydra
from omegaconf import DictConfig

from papo.commands import front_door


@front_door.clear_errors(reached=lambda _: "is not whole", resumes_alone=False)
def task(config: DictConfig) -> None:
    """One analysis."""
    # As in train.py.
    from papo.commands.analysis import analyze

    analyze(config)


main = hydra.main(config_path=front_door.CONFIG_FOLDER, config_name="analyze", version_base="1.3")(
    task
)
