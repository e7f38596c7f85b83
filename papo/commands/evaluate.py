"""Evaluates a policy: `python evaluate.py checkpoint=RUN_OR_FOLDER benchmark=all`.

Composes conf/evaluate.yaml; evaluation/job.py checks every setting and every data set before a model is loaded, then
samples and grades batch by batch, and ends with a table. The loop is papo/evaluation/run/runner.py.
"""

from typing import Any

import hydra
from omegaconf import DictConfig

from papo.commands import front_door


@front_door.clear_errors(
    reached=lambda _: "keeps what is graded", resumes_alone=False, on_ranks=True
)
def task(config: DictConfig, ranks: Any) -> float:
    """One evaluation, or one rank of it. Returns the mean accuracy over benchmarks in the first view, for sweepers."""
    # As in train.py.
    from papo.commands.evaluation.job import evaluate

    return evaluate(config, ranks)


# A launcher's process finds `task` by its name (see train.py).
main = hydra.main(config_path=front_door.CONFIG_FOLDER, config_name="evaluate", version_base="1.3")(
    task
)
