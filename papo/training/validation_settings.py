"""The sections `evaluation` and `validation` of a training run's configuration, checked before anything is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutSettings:
    """How a policy is evaluated on held-out problems; the keys of `evaluation.` in conf/train.yaml.

    Attributes:
        num_problems: the first so many of each set; None: all.
        num_responses: to each problem.
        greedy: the most likely tokens, instead of drawing as rollouts are drawn.
        seed: of the draws, and of the intervals.
        tokens_per_batch: as of an evaluation's (papo.evaluation.EvaluationSettings); of `benchmark=` alone.
    """

    num_problems: int | None
    num_responses: int
    greedy: bool
    seed: int
    tokens_per_batch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationSettings:
    """What is validated while training; the keys of `validation.` in conf/train.yaml.

    Attributes:
        every_rollouts: after every n-th rollout; 0: never.
        monitor: the metric that says which policy is better: the larger, the better.
        keep_best: whether the checkpoint of the best validation stays, whatever follows.
        patience: validations in a row that are no better than the best, after which the run ends; None: never.
    """

    every_rollouts: int
    monitor: str
    keep_best: bool
    patience: int | None


def held_out_settings(section: Mapping[str, Any]) -> HeldOutSettings:
    """Returns the settings of an `evaluation` section.

    Raises:
        ValueError: an unknown, missing or impossible setting; names its key.
    """
    _check_keys(section, HeldOutSettings, "evaluation")
    _check_whole(section, "evaluation", num_problems=1, num_responses=1, seed=0, tokens_per_batch=1)
    _check_truth(section, "evaluation", "greedy")
    settings = HeldOutSettings(**section)
    if settings.greedy and settings.num_responses > 1:
        raise ValueError(
            "greedy responses to one problem are all the same; got evaluation.num_responses="
            f"{settings.num_responses} with evaluation.greedy=true. Set evaluation.num_responses=1."
        )
    return settings


def validation_settings(section: Mapping[str, Any]) -> ValidationSettings:
    """Returns the settings of a `validation` section.

    Raises:
        ValueError: an unknown, missing or impossible setting; names its key.
    """
    _check_keys(section, ValidationSettings, "validation")
    _check_whole(section, "validation", every_rollouts=0, patience=1)
    _check_truth(section, "validation", "keep_best")
    settings = ValidationSettings(**section)
    if settings.every_rollouts == 0 and settings.patience is not None:
        raise ValueError(
            f"a run that is not validated is not ended by it; got validation.patience={settings.patience} with "
            "validation.every_rollouts=0. Set validation.every_rollouts."
        )
    return settings


def check_monitor(settings: ValidationSettings, names: tuple[str, ...]) -> None:
    """Raises ValueError where the metric to compare is none that a validation measures."""
    if settings.every_rollouts and settings.monitor not in names:
        raise ValueError(
            f"validation.monitor is one of {', '.join(names)}; got {settings.monitor!r}"
        )


def _check_keys(section: Mapping[str, Any], kind: type, name: str) -> None:
    known = {field.name for field in fields(kind)}
    for key in section:
        if key not in known:
            raise ValueError(f"unknown key {name}.{key}; known: {', '.join(sorted(known))}")
    if missing := sorted(known - set(section)):
        raise ValueError(f"{name}.{missing[0]} is not set; set it in conf/train.yaml")


def _check_whole(section: Mapping[str, Any], name: str, **at_least: int) -> None:
    for key, lowest in at_least.items():
        value = section[key]
        if value is None and key in ("num_problems", "patience"):
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
            raise ValueError(
                f"{name}.{key} is a whole number of at least {lowest}; got {value!r}. Set {name}.{key}."
            )


def _check_truth(section: Mapping[str, Any], name: str, key: str) -> None:
    if not isinstance(section[key], bool):
        raise ValueError(f"{name}.{key} is true or false; got {section[key]!r}")
