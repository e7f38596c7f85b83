"""The numbers of a training run, and the rules they obey: checked before anything is loaded."""

import math
from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from papo.parallel import check_shard_size
from papo.types.settings import Count, CountOrNone, Section, section_settings


class TrainingSettings(Section):
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

    num_rollouts: Count
    prompts_per_rollout: Count
    prompts_per_minibatch: Count
    prompts_per_microbatch: CountOrNone
    tokens_per_microbatch: CountOrNone
    max_grad_norm: float = Field(
        gt=0,
        description="gradients are clipped to a norm above 0; got {got}. Set {key} (published: 1.0; inf turns "
        "clipping off).",
    )
    advantage_epsilon: float = Field(
        gt=0,
        lt=math.inf,
        description="rewards are divided by their deviation plus a finite epsilon above 0; got {got}. Set {key} "
        "(official: 1e-6).",
    )
    max_resample: int = Field(
        ge=0, description="dynamic sampling has 0 or more rounds; got {got}. Set {key} (0 is off)."
    )
    keep_accuracy_above: float = Field(description="{key} is a number; got {got}")
    keep_accuracy_below: float = Field(description="{key} is a number; got {got}")

    @property
    def updates_per_rollout(self) -> int:
        """Optimiser steps after each rollout."""
        return self.prompts_per_rollout // self.prompts_per_minibatch

    @model_validator(mode="after")
    def _keys_agree(self) -> "TrainingSettings":
        self._require_divisor("prompts_per_minibatch", "prompts_per_rollout", "minibatches")
        if (self.prompts_per_microbatch is None) == (self.tokens_per_microbatch is None):
            raise ValueError(
                "a micro-batch is cut by prompts or by tokens; got training.prompts_per_microbatch="
                f"{self.prompts_per_microbatch} and training.tokens_per_microbatch="
                f"{self.tokens_per_microbatch}. Set one of them to null and the other to a number."
            )
        if self.prompts_per_microbatch is not None:
            self._require_divisor(
                "prompts_per_microbatch", "prompts_per_minibatch", "micro-batches"
            )
        low, high = self.keep_accuracy_above, self.keep_accuracy_below
        if not 0 <= low < high <= 1:
            raise ValueError(
                "dynamic sampling keeps mean accuracies inside an interval of [0, 1]; "
                f"got ({low}, {high}). Set training.keep_accuracy_above and training.keep_accuracy_below "
                "(official: 0.01, 0.99)."
            )
        return self

    def _require_divisor(self, part: str, whole: str, parts: str) -> None:
        num_part, num_whole = getattr(self, part), getattr(self, whole)
        if num_part > num_whole or num_whole % num_part:
            raise ValueError(
                f"{whole.replace('_', ' ')} are cut into equal {parts}, so training.{part} divides "
                f"training.{whole}; got {num_part} and {num_whole}. Set training.{part} to a divisor of "
                f"{num_whole}."
            )


def training_settings(section: Mapping[str, Any]) -> TrainingSettings:
    """Returns the settings of a `training` section of the configuration; see `section_settings`."""
    return section_settings(TrainingSettings, section, name="training", file="conf/train.yaml")


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
