"""The numbers of a training run, and the rules they obey: checked before anything is loaded."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from papo.parallel import check_shard_size


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """How long to train and how a rollout is cut; the keys of `training.` in conf/.

    Attributes:
        num_rollouts: rollouts of the whole run; each is followed by its updates.
        prompts_per_rollout: prompts collected before the policy changes.
        prompts_per_minibatch: prompts per optimiser step.
        prompts_per_microbatch: prompts per forward and backward pass; bounds memory, changes nothing
            else. None where tokens are counted instead.
        tokens_per_microbatch: prompt and response tokens of one view per forward and backward pass:
            as many whole groups as fit, at least one. A prompt counts once where its responses share
            it (model.scoring). None where prompts are counted instead.
        max_grad_norm: the gradient of a minibatch is scaled down to this norm.
        advantage_epsilon: added to the standard deviation of a group's rewards.
        max_resample: rounds of dynamic sampling (DAPO, arXiv:2503.14476): prompts whose responses
            are all (nearly) wrong or all (nearly) right are replaced by further prompts; 0 is off.
        keep_accuracy_above: a prompt is kept when the mean accuracy of its responses is above this
        keep_accuracy_below: and below this; both are read only while max_resample > 0.
    """

    num_rollouts: int
    prompts_per_rollout: int
    prompts_per_minibatch: int
    prompts_per_microbatch: int | None
    max_grad_norm: float
    advantage_epsilon: float
    max_resample: int
    keep_accuracy_above: float
    keep_accuracy_below: float
    tokens_per_microbatch: int | None = None

    @property
    def updates_per_rollout(self) -> int:
        """Optimiser steps after each rollout."""
        return self.prompts_per_rollout // self.prompts_per_minibatch


_MICROBATCH = ("prompts_per_microbatch", "tokens_per_microbatch")
_COUNTS = ("num_rollouts", "prompts_per_rollout", "prompts_per_minibatch", *_MICROBATCH)


def training_settings(section: Mapping[str, object]) -> TrainingSettings:
    """Returns the settings of a `training` section of the configuration.

    Raises:
        ValueError: an unknown, missing or impossible setting; names its key.
    """
    known = {f.name for f in fields(TrainingSettings)}
    for name in section:
        if name not in known:
            raise ValueError(f"unknown key training.{name}; known: {', '.join(sorted(known))}")
    if missing := sorted(known - set(section)):
        raise ValueError(f"training.{missing[0]} is not set; set it in conf/train.yaml")
    for name in known:
        value = section[name]
        if value is None and name in _MICROBATCH:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"training.{name} is a number; got {value!r}")
        if name in (*_COUNTS, "max_resample") and not isinstance(value, int):
            raise ValueError(f"training.{name} counts, so it is a whole number; got {value!r}")
    # A whole number is a fine value for a setting that need not be one.
    numbers = {
        name: value if name in (*_COUNTS, "max_resample") else float(value)  # type: ignore[arg-type]
        for name, value in section.items()
    }
    settings = TrainingSettings(**numbers)  # type: ignore[arg-type]
    _check(settings)
    return settings


def _check(settings: TrainingSettings) -> None:
    for name in _COUNTS:
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise ValueError(f"training.{name} is at least 1; got {value}")
    _check_divides(settings, "prompts_per_minibatch", "prompts_per_rollout", "minibatches")
    if (settings.prompts_per_microbatch is None) == (settings.tokens_per_microbatch is None):
        raise ValueError(
            "a micro-batch is cut by prompts or by tokens; got training.prompts_per_microbatch="
            f"{settings.prompts_per_microbatch} and training.tokens_per_microbatch="
            f"{settings.tokens_per_microbatch}. Set one of them to null and the other to a number."
        )
    if settings.prompts_per_microbatch is not None:
        _check_divides(settings, "prompts_per_microbatch", "prompts_per_minibatch", "micro-batches")
    if not settings.max_grad_norm > 0:
        raise ValueError(
            f"gradients are clipped to a norm above 0; got {settings.max_grad_norm}. "
            "Set training.max_grad_norm (published: 1.0; inf turns clipping off)."
        )
    if not 0 < settings.advantage_epsilon < math.inf:
        raise ValueError(
            "rewards are divided by their deviation plus a finite epsilon above 0; "
            f"got {settings.advantage_epsilon}. Set training.advantage_epsilon (official: 1e-6)."
        )
    if settings.max_resample < 0:
        raise ValueError(
            f"dynamic sampling has 0 or more rounds; got {settings.max_resample}. "
            "Set training.max_resample (0 is off)."
        )
    low, high = settings.keep_accuracy_above, settings.keep_accuracy_below
    if not 0 <= low < high <= 1:
        raise ValueError(
            "dynamic sampling keeps mean accuracies inside an interval of [0, 1]; "
            f"got ({low}, {high}). Set training.keep_accuracy_above and training.keep_accuracy_below "
            "(official: 0.01, 0.99)."
        )


def _check_divides(settings: TrainingSettings, part: str, whole: str, parts: str) -> None:
    num_part, num_whole = getattr(settings, part), getattr(settings, whole)
    if num_part > num_whole or num_whole % num_part:
        raise ValueError(
            f"{whole.replace('_', ' ')} are cut into equal {parts}, so training.{part} divides "
            f"training.{whole}; got {num_part} and {num_whole}. Set training.{part} to a divisor of "
            f"{num_whole}."
        )


def check_group_size(num_responses: object) -> int:
    """Returns G, or says why it cannot be.

    Raises:
        ValueError: fewer than two responses per prompt: there is nothing to compare.
    """
    if isinstance(num_responses, bool) or not isinstance(num_responses, int) or num_responses < 2:
        raise ValueError(
            "group advantages compare the responses to one prompt, so there are at least 2; "
            f"got {num_responses!r}. Set rollout.num_responses (official PAPO: 5)."
        )
    return num_responses


def check_share(num_processes: int, *, prompts_per_minibatch: int) -> None:
    """Raises ValueError where there are more processes than a minibatch has prompts."""
    if num_processes > prompts_per_minibatch:
        raise ValueError(
            f"every process has a prompt of each minibatch; got {num_processes} processes (trainer.devices, "
            f"of trainer.num_nodes machines) for training.prompts_per_minibatch={prompts_per_minibatch}. Lower "
            "one, or raise the other."
        )


def check_strategy(
    *, strategy: object, shard_size: object, precision: object, processes: int
) -> int:
    """Returns how many processes share one copy of the policy: 1 where each has its own.

    Args:
        strategy: `shards`; `replicas` or None: every process has the whole policy.
        shard_size: processes that share one copy; None: all.
        precision: of the passes.
        processes: of the run. One has no other to share with, whatever the strategy.

    Raises:
        ValueError: an unknown or impossible setting.
    """
    if strategy not in (None, "replicas", "shards"):
        raise ValueError(
            f"the policy is in replicas or in shards; got trainer.strategy={strategy!r}. Set trainer=replicas "
            "or trainer=sharded."
        )
    if strategy != "shards" and shard_size is not None:
        raise ValueError(
            f"only shards have a size; got trainer.shard_size={shard_size!r} with trainer.strategy={strategy}. "
            "Set trainer=sharded."
        )
    if strategy != "shards" or processes == 1:
        return 1
    if str(precision) not in ("32", "32-true", "bf16-mixed"):
        raise ValueError(
            "shards are float32, and passes over them float32 or bfloat16; got trainer.precision="
            f"{precision}. Set 32-true or bf16-mixed."
        )
    return check_shard_size(shard_size, processes)


def check_threads(num_threads: object) -> None:
    """Refuses a number of threads below 1; None is PyTorch's choice.

    Raises:
        ValueError: neither a whole number of at least 1 nor None.
    """
    if num_threads is not None and (
        isinstance(num_threads, bool) or not isinstance(num_threads, int) or num_threads < 1
    ):
        raise ValueError(
            f"PyTorch needs at least 1 thread; got {num_threads!r}. Set num_threads (null: its own choice)."
        )


def check_seed(seed: object) -> int:
    """Returns the seed of the run.

    Raises:
        ValueError: not a whole number from 0 to 2**32 - 1.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"a seed is a whole number from 0 to 2**32 - 1; got {seed!r}. Set seed.")
    return seed
