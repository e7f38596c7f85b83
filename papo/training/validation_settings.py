"""The sections `evaluation` and `validation` of a training run's configuration, checked before anything is loaded."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from papo.types.settings import (
    Count,
    CountFrom0,
    CountOrNone,
    Section,
    Truth,
    section_settings,
)


class HeldOutSettings(Section):
    """How a policy is evaluated on held-out problems; the keys of `evaluation.` in conf/train.yaml.

    Attributes:
        num_problems: the first so many of each set; None: all.
        num_responses: to each problem.
        greedy: the most likely tokens, instead of drawing as rollouts are drawn.
        seed: of the draws, and of the intervals.
        tokens_per_batch: as of an evaluation's (papo.evaluation.EvaluationSettings); of `benchmark=` alone.
    """

    num_problems: CountOrNone
    num_responses: Count
    greedy: Truth
    seed: CountFrom0
    tokens_per_batch: Count

    @model_validator(mode="after")
    def _keys_agree(self) -> "HeldOutSettings":
        if self.greedy and self.num_responses > 1:
            raise ValueError(
                "greedy responses to one problem are all the same; got evaluation.num_responses="
                f"{self.num_responses} with evaluation.greedy=true. Set evaluation.num_responses=1."
            )
        return self


class ValidationSettings(Section):
    """What is validated while training; the keys of `validation.` in conf/train.yaml.

    Attributes:
        every_rollouts: after every n-th rollout; 0: never.
        monitor: the metric that says which policy is better: the larger, the better.
        keep_best: whether the checkpoint of the best validation stays, whatever follows.
        patience: validations in a row that are no better than the best, after which the run ends; None: never.
    """

    every_rollouts: CountFrom0
    monitor: str = Field(description="{key} is the name of a metric; got {got}")
    keep_best: Truth
    patience: CountOrNone

    @model_validator(mode="after")
    def _keys_agree(self) -> "ValidationSettings":
        if self.every_rollouts == 0 and self.patience is not None:
            raise ValueError(
                f"a run that is not validated is not ended by it; got validation.patience={self.patience} with "
                "validation.every_rollouts=0. Set validation.every_rollouts."
            )
        return self


def held_out_settings(section: Mapping[str, Any]) -> HeldOutSettings:
    """Returns the settings of an `evaluation` section; see `section_settings`."""
    return section_settings(HeldOutSettings, section, name="evaluation", file="conf/train.yaml")


def validation_settings(section: Mapping[str, Any]) -> ValidationSettings:
    """Returns the settings of a `validation` section; see `section_settings`."""
    return section_settings(ValidationSettings, section, name="validation", file="conf/train.yaml")


def check_monitor(settings: ValidationSettings, names: tuple[str, ...]) -> None:
    """Raises ValueError where the metric to compare is none that a validation measures."""
    if settings.every_rollouts and settings.monitor not in names:
        raise ValueError(
            f"validation.monitor is one of {', '.join(names)}; got {settings.monitor!r}"
        )
