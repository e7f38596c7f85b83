"""A callback of one's own: a class of Lightning's, asked after every rollout and its updates."""

import json
from pathlib import Path

from lightning.pytorch import Callback

from papo.training.callbacks.record import finished_step


class NoteBest(Callback):
    """Writes largest.json: the rollout with the largest value of a metric.

    Args:
        metric: a column of metrics.csv.
    """

    def __init__(self, *, metric: str) -> None:
        self.metric, self.best = metric, float("-inf")

    def on_train_batch_end(self, trainer, pl_module, *_):
        step = finished_step(pl_module)
        value = step.metrics[self.metric]
        if value > self.best and trainer.is_global_zero:
            self.best = value
            note = {"rollout_step": step.rollout_step, self.metric: value}
            (Path(trainer.default_root_dir) / "largest.json").write_text(json.dumps(note), "utf-8")

    def state_dict(self):
        return {"best": self.best}  # a resumed run goes on from here

    def load_state_dict(self, state_dict):
        self.best = state_dict["best"]
