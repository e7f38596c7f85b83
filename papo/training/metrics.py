"""What a rollout and its updates are summarised by; docs/metrics.md gives every formula."""

from collections.abc import Mapping

import torch
from torch import Tensor

from papo.training.collect import Rollout
from papo.views import MASKED


def rollout_metrics(rollout: Rollout) -> dict[str, float]:
    """Numbers about one rollout that depend on nothing but the run's seed."""
    draft = rollout.draft
    rewards, lengths = draft.rewards, draft.responses.mask.sum(dim=1).float()
    group_rewards = rewards.total.float().reshape(len(draft.prompts), -1)
    metrics: dict[str, Tensor | float] = {
        "reward/mean": rewards.total.float().mean(),
        "reward/std": group_rewards.std(dim=1).mean(),
        "reward/std_all": rewards.total.float().std(),
        "reward/uniform_groups": (group_rewards == group_rewards[:, :1]).all(dim=1).float().mean(),
        "reward/correct": rewards.correct.float().mean(),
        **{f"reward/{name}": part.float().mean() for name, part in rewards.components.items()},
        "reward/timeouts": rollout.timeouts,
        "response/tokens_mean": lengths.mean(),
        "response/tokens_max": lengths.max(),
        "response/finished": draft.responses.finished.float().mean(),
        "prompt/tokens_mean": sum(p.num_tokens for p in draft.prompts) / len(draft.prompts),
        "advantages/max": rollout.advantages.max(),
        "advantages/min": rollout.advantages.min(),
        "resample/rounds": rollout.resample_rounds,
        "resample/groups_dropped": rollout.groups_dropped,
        "resample/drawn_correct": rollout.drawn_accuracy,
    }
    for view, changed in rollout.changed.items():
        name = "masking/masked_fraction" if view == MASKED else f"views/{view}_changed"
        metrics[name] = changed
    metrics |= rollout.credit
    if rollout.agreement is not None:
        metrics |= {**rollout.agreement.metrics(), "rollout/age": rollout.age}
    return {name: float(value) for name, value in metrics.items()}


class MinibatchSums:
    """Collects the terms and diagnostics of one minibatch: what its micro-batches contribute adds up."""

    def __init__(self) -> None:
        self.values: dict[str, Tensor] = {}

    def add(self, prefix: str, values: Mapping[str, Tensor]) -> None:
        """Adds what one micro-batch contributes."""
        for name, value in values.items():
            key, value = f"{prefix}/{name}", torch.as_tensor(value).detach().double().cpu()
            self.values[key] = self.values.get(key, torch.zeros((), dtype=torch.float64)) + value

    def numbers(self) -> dict[str, float]:
        """What was added up, by name."""
        return {name: float(value) for name, value in self.values.items()}


class UpdateMeans:
    """Averages the minibatches of one rollout."""

    def __init__(self) -> None:
        self._minibatches: list[dict[str, float]] = []

    def add(self, sums: Mapping[str, float], *, grad_norm: float) -> None:
        """Adds a finished minibatch."""
        self._minibatches.append({**sums, "update/grad_norm": grad_norm})

    def means(self) -> dict[str, float]:
        """The mean over the minibatches."""
        count = len(self._minibatches)
        return {
            name: sum(each[name] for each in self._minibatches) / count
            for name in self._minibatches[0]
        }
