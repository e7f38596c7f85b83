"""PAPO under Lightning: each training step collects a rollout and updates the policy on it."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, NoReturn

import numpy
import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from papo.objective import NonFiniteTermError, PAPOObjective
from papo.training.base_weights import (
    base_parameters,
    fingerprint,
    leave_out_base,
    put_base_back,
    trained_parameters,
)
from papo.training.collect import Collector, Rollout
from papo.training.failures import NonFiniteLoss
from papo.training.metrics import MinibatchSums, UpdateMeans, rollout_metrics
from papo.training.microbatches import trim
from papo.training.policy import PolicyModule
from papo.types import MinibatchCounts, RolloutBatch, TokenScores


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FinishedStep:
    """What callbacks read after a training step.

    Attributes:
        rollout_step: how many rollouts are finished, this one included.
        rollout: what was collected.
        metrics: numbers that a resumed run reproduces to the bit.
        seconds: wall time of the phases rollout, reward, score and update.
    """

    rollout_step: int
    rollout: Rollout
    metrics: dict[str, int | float]
    seconds: dict[str, float]


class PAPOModule(LightningModule):
    """Trains a policy: one training step is one rollout and its optimiser steps.

    The state of a run is what it trains of the policy, the optimiser, three counters and how often the
    micro-batches were halved; the reference belongs to the collector, outside the module tree, so that
    it is neither trained nor saved.

    Args:
        policy_module: what is trained.
        collector: makes rollouts.
        objective: the terms of the loss.
        failure_folder: where the batch of a non-finite loss goes.
    """

    def __init__(
        self,
        *,
        policy_module: PolicyModule,
        collector: Collector,
        objective: PAPOObjective,
        failure_folder: Path,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.policy_module = policy_module
        self.collector = collector
        self.objective = objective
        self.settings = collector.settings
        self.failure_folder = failure_folder
        self.base_fingerprint = fingerprint(base_parameters(policy_module.policy))
        self.rollout_step = 0
        self.update_step = 0
        self.prompts_drawn = 0
        self.last_step: FinishedStep | None = None

    @property
    def num_rollouts(self) -> int:
        return self.settings.num_rollouts

    def train_dataloader(self) -> range:
        """One batch: an epoch of Lightning's is a rollout, so that what it does after epochs (EarlyStopping,
        ModelCheckpoint) is done after rollouts. Problems are drawn by position inside the step: a loader
        that held them would be prefetched, and would have a state of its own to save.
        """
        return range(1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.policy_module.configure_optimizers()

    def on_fit_start(self) -> None:
        if self.collector.reference is not None:
            self.collector.reference.to(self.device)

    def training_step(self, batch: int, batch_index: int) -> None:
        rollout = self.collector.collect(self.rollout_step, self.prompts_drawn)
        started = perf_counter()
        update_metrics = self._update(rollout)
        seconds = {**rollout.seconds, "update": perf_counter() - started}
        self.rollout_step += 1
        self.prompts_drawn += rollout.prompts_drawn
        self.last_step = FinishedStep(
            rollout_step=self.rollout_step,
            rollout=rollout,
            metrics={
                "rollout_step": self.rollout_step,
                "update_step": self.update_step,
                "prompts_drawn": self.prompts_drawn,
                **rollout_metrics(rollout),
                **update_metrics,
            },
            seconds=seconds,
        )
        # For callbacks that monitor a metric; RecordMetrics writes them, to the loggers too.
        self.log_dict(self.last_step.metrics, logger=False)

    def _update(self, rollout: Rollout) -> dict[str, float]:
        """One optimiser step per minibatch. Terms are normalised by the minibatch, so gradients of
        its micro-batches, on whichever rank, add up to its own.
        """
        optimizer: Any = self.optimizers()
        ranks, means = self.collector.ranks, UpdateMeans()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for share in rollout.minibatches:
            part = trim(rollout.batch.select_groups(share.start, share.stop))
            sums = self.collector.microbatches.retried(
                part, partial(self._accumulate, share.counts)
            )
            ranks.sum_gradients(parameters)
            grad_norm = torch.nn.utils.clip_grad_norm_(parameters, self.settings.max_grad_norm)
            if not bool(torch.isfinite(grad_norm)):
                self._stop("the gradient norm", grad_norm, part, None)
            optimizer.step()
            self.update_step += 1
            means.add(ranks.sum_numbers(sums.numbers()), grad_norm=float(grad_norm))
        self._require_equal_weights()
        return {
            **means.means(),
            "update/learning_rate": float(optimizer.param_groups[0]["lr"]),
            "update/microbatch_halvings": self.collector.microbatches.halvings,
        }

    def _require_equal_weights(self) -> None:
        """Ranks that train different policies without knowing it would report one of them."""
        ranks = self.collector.ranks
        if ranks.size == 1:
            return
        trained = trained_parameters(self.policy_module.policy)
        ranks.require_equal(
            {"weights": fingerprint(trained)},
            remedy=f"They parted in rollout {self.rollout_step + 1}; the last checkpoint is that of rank 0.",
        )

    def _accumulate(self, counts: MinibatchCounts, passes: Iterator[RolloutBatch]) -> MinibatchSums:
        """Fills the gradients of a minibatch, from nothing: a failed attempt may have left some."""
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        sums = MinibatchSums()
        for part in passes:
            scores = self._score(part)
            terms = self._terms(part, scores, counts)
            self.manual_backward(terms["total"])
            sums.add("loss", terms)
            sums.add("policy", self.objective.diagnostics(part, scores, counts))
        return sums

    def _score(self, part: RolloutBatch) -> TokenScores:
        scores: TokenScores = self.policy_module.policy.score(
            part.groups,
            part.response_ids,
            part.response_mask,
            masked_view=self.objective.needs_masked_view,
            full_vocabulary=self.objective.needs_full_vocabulary,
        )
        return scores

    def _terms(
        self, part: RolloutBatch, scores: TokenScores, counts: MinibatchCounts
    ) -> dict[str, Tensor]:
        progress = self.rollout_step / self.num_rollouts
        try:
            terms = self.objective(part, scores, minibatch=counts, progress=progress)
        except NonFiniteTermError as error:
            self._stop(f"the term {error.term}", error.value, part, scores)
        if not bool(torch.isfinite(terms["total"])):
            self._stop("the total loss", terms["total"], part, scores)
        return terms

    def _stop(
        self,
        quantity: str,
        value: Tensor | float,
        part: RolloutBatch,
        scores: TokenScores | None,
    ) -> NoReturn:
        ranks = self.collector.ranks
        whose = f"_rank_{ranks.rank}" if ranks.size > 1 else ""
        file = self.failure_folder / f"rollout_{self.rollout_step + 1:06d}{whose}.pt"
        write_batch(file, {quantity: float(value)}, part, scores)
        raise NonFiniteLoss(quantity=quantity, rollout_step=self.rollout_step, batch_file=file)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        reference = self.collector.reference
        checkpoint["papo"] = {
            "rollout_step": self.rollout_step,
            "update_step": self.update_step,
            "prompts_drawn": self.prompts_drawn,
            "microbatch_halvings": self._halvings_of_ranks(),
            "base": self.base_fingerprint,
            "reference": None if reference is None else reference.fingerprint,
        }
        leave_out_base(checkpoint, self.policy_module.policy)
        checkpoint["random_state"] = _random_state()

    def _halvings_of_ranks(self) -> int | list[int]:
        """Memory runs out on one rank, and not on another: a number each, one where there is one rank."""
        everyone = self.collector.ranks.gather(self.collector.microbatches.halvings)
        return everyone if len(everyone) > 1 else everyone[0]

    def _own_halvings(self, saved: int | list[int]) -> int:
        everyone = [saved] if isinstance(saved, int) else saved
        ranks = self.collector.ranks
        # Other ranks than those that saved have other groups: what fitted all of them fits.
        return everyone[ranks.rank] if len(everyone) == ranks.size else max(everyone)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state, reference = checkpoint["papo"], self.collector.reference
        if reference is not None and state["reference"] not in (None, reference.fingerprint):
            raise ValueError(
                "the initial policy differs from the one this run began with, so its reference policy "
                "cannot be restored; got another model behind the same model= settings. Restore the "
                "model, or start a new run in another run_dir."
            )
        put_base_back(checkpoint, self.policy_module.policy, self.base_fingerprint)
        self.rollout_step = state["rollout_step"]
        self.update_step = state["update_step"]
        self.prompts_drawn = state["prompts_drawn"]
        self.collector.microbatches.halvings = self._own_halvings(state["microbatch_halvings"])
        # What Lightning saved of its counters is of the middle of an epoch.
        checkpoint.pop("loops")
        _set_progress(self.trainer.fit_loop, self.rollout_step, self.update_step)
        _restore_random_state(checkpoint["random_state"])


def write_batch(
    file: Path, broken: Mapping[str, float], part: RolloutBatch, scores: TokenScores | None
) -> None:
    """Writes what a non-finite loss was computed from: tensors and plain values only."""

    def tensors(owner: object, names: tuple[str, ...]) -> dict[str, Tensor]:
        found = {name: getattr(owner, name) for name in names}
        return {name: value.detach().cpu() for name, value in found.items() if value is not None}

    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(
        {
            "broken": dict(broken),
            "batch": tensors(
                part,
                (
                    "response_ids",
                    "response_mask",
                    "old_logprobs",
                    "ref_logprobs",
                    "masked_logprobs",
                    "advantages",
                    "correct",
                ),
            ),
            "scores": {}
            if scores is None
            else tensors(
                scores,
                ("logprobs", "masked_logprobs", "entropy", "masked_entropy", "perception_kl"),
            ),
            "prompts": [
                {
                    "id": group.problem.id,
                    "question": group.problem.question,
                    **tensors(group, ("prompt_ids", "patches", "masked_patches", "image_grid_thw")),
                }
                for group in part.groups
            ],
        },
        file,
    )


def _set_progress(loop: Any, rollout_step: int, update_step: int) -> None:
    """Lets Lightning count on from these: files of ModelCheckpoint are named after them."""
    epochs, updates = loop.epoch_progress, loop.epoch_loop.manual_optimization.optim_step_progress
    for progress in (epochs.total, epochs.current):
        progress.ready = progress.started = rollout_step
        progress.processed = progress.completed = rollout_step
    updates.total.ready = updates.total.completed = update_step
    loop.epoch_loop.on_load_checkpoint({"_batches_that_stepped": rollout_step})


def _random_state() -> dict[str, Any]:
    bits = numpy.random.get_state(legacy=False)
    assert isinstance(bits, dict)
    key = torch.from_numpy(bits["state"]["key"].astype("int64"))
    return {
        "python": random.getstate(),
        "numpy": {**bits, "state": {**bits["state"], "key": key}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all(),
    }


def _restore_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    bits = state["numpy"]
    key = bits["state"]["key"].numpy().astype("uint32")
    numpy.random.set_state({**bits, "state": {**bits["state"], "key": key}})
    torch.set_rng_state(state["torch"])
    torch.cuda.set_rng_state_all(state["cuda"])
