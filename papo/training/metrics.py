"""What a rollout and its updates are summarised by; docs/metrics.md gives every formula."""

from collections.abc import Mapping

import torch
from torch import Tensor

from papo.training.collect import Rollout


def rollout_metrics(rollout: Rollout) -> dict[str, float]:
    """Numbers about one rollout that depend on nothing but the run's seed."""
    draft, batch = rollout.draft, rollout.batch
    rewards, lengths = draft.rewards, draft.responses.mask.sum(dim=1).float()
    group_rewards = rewards.total.float().reshape(len(draft.groups), -1)
    metrics: dict[str, Tensor | float] = {
        "reward/mean": rewards.total.float().mean(),
        "reward/std": group_rewards.std(dim=1).mean(),
        "reward/uniform_groups": (group_rewards == group_rewards[:, :1]).all(dim=1).float().mean(),
        "reward/correct": rewards.correct.float().mean(),
        **{f"reward/{name}": part.float().mean() for name, part in rewards.components.items()},
        "reward/timeouts": rollout.timeouts,
        "response/tokens_mean": lengths.mean(),
        "response/tokens_max": lengths.max(),
        "response/finished": draft.responses.finished.float().mean(),
        "prompt/tokens_mean": sum(g.prompt_ids.shape[0] for g in draft.groups) / len(draft.groups),
        "advantages/max": batch.advantages.max(),
        "advantages/min": batch.advantages.min(),
        "resample/rounds": rollout.resample_rounds,
        "resample/groups_dropped": rollout.groups_dropped,
        "resample/drawn_correct": rollout.drawn_accuracy,
    }
    if rollout.masked_fraction is not None:
        metrics["masking/masked_fraction"] = rollout.masked_fraction
    return {name: float(value) for name, value in metrics.items()}


class UpdateMeans:
    """Collects the terms and diagnostics of the minibatches of one rollout.

    Both are normalised by their minibatch, so micro-batches add up and minibatches are averaged.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._num_minibatches = 0

    def add(self, prefix: str, values: Mapping[str, Tensor]) -> None:
        """Adds what one micro-batch contributes."""
        for name, value in values.items():
            key, value = f"{prefix}/{name}", torch.as_tensor(value).detach().double()
            self._sums[key] = (
                self._sums.get(key, torch.zeros((), dtype=torch.float64)) + value.cpu()
            )

    def finish_minibatch(self, grad_norm: float) -> None:
        self.add("update", {"grad_norm": torch.tensor(grad_norm)})
        self._num_minibatches += 1

    def means(self) -> dict[str, float]:
        """The mean over the minibatches."""
        return {name: float(total) / self._num_minibatches for name, total in self._sums.items()}
