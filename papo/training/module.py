"""PAPO under Lightning: each training step collects a rollout and updates the policy on it."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from papo.objective import NonFiniteTermError, Objective
from papo.parallel import RanksDiffer, Sharding, full_tensor, local_tensor
from papo.training.base_weights import base_parameters, fingerprint, trained_parameters
from papo.training.broken_passes import BrokenPasses
from papo.training.collect import Collector, Rollout
from papo.training.division import MinibatchShare
from papo.training.failures import PassDoesNotFit
from papo.training.initial_weights import cut_into_shards
from papo.training.metrics import MinibatchSums, UpdateMeans, rollout_metrics
from papo.training.microbatches import read_halvings, trim, write_halvings
from papo.training.policy import PolicyModule
from papo.training.run_state import restore_run, save_run
from papo.types import IMAGE, MinibatchCounts, RolloutBatch, TokenScores


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


class TrainingModule(LightningModule):
    """Trains a policy: one training step is one rollout and its optimiser steps.

    The state of a run is what it trains of the policy, the optimiser, three counters, how often the
    micro-batches were halved and the responses that were written ahead; the reference belongs to the
    collector, outside the module tree, so that it is neither trained nor saved.

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
        objective: Objective,
        failure_folder: Path,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.policy_module = policy_module
        self.collector = collector
        self.objective = objective
        self.settings = collector.settings
        self.failure_folder = failure_folder
        self.broken = BrokenPasses(failure_folder, collector.ranks, collector.sharding)
        collector.idle = self._idle_while_sampling
        # Whoever saves a state, in the middle of a rollout too, finds it whole.
        self.register_state_dict_pre_hook(lambda *_: collector.offload.bring_back())
        self.base_fingerprint = ""
        if policy_module.policy.unread_weights is None:
            self.base_fingerprint = fingerprint(base_parameters(policy_module.policy))
        elif not collector.sharding.passes_are_collective:
            raise ValueError(
                "weights stay in their files until ranks share them (trainer=sharded); got "
                "model.leave_in_files=true. Leave it out."
            )
        self.rollout_step = 0
        self.update_step = 0
        self.prompts_drawn = 0
        self.last_step: FinishedStep | None = None
        self.before_update: Callable[[Rollout, RolloutBatch], None] | None = None
        """Told the rollout and this rank's share of a minibatch before its update; must change nothing."""
        self._is_cut = False

    @property
    def num_rollouts(self) -> int:
        return self.settings.num_rollouts

    @property
    def progress(self) -> float:
        """Share of the run that is done, 0 to 1."""
        return self.rollout_step / self.num_rollouts

    def train_dataloader(self) -> range:
        """One batch: an epoch of Lightning's is a rollout, so that what it does after epochs (EarlyStopping,
        ModelCheckpoint) is done after rollouts. Problems are drawn by position inside the step: a loader
        that held them would be prefetched, and would have a state of its own to save.
        """
        return range(1)

    def configure_model(self) -> None:
        """Cuts the weights into shards, where the run has them in shards; before the optimiser is made, once."""
        sharding = self.collector.sharding
        if self._is_cut or not isinstance(sharding, Sharding):
            return
        found = cut_into_shards(
            self.policy_module.policy,
            self.collector.reference,
            ranks=self.collector.ranks,
            sharding=sharding,
        )
        self.base_fingerprint = self.base_fingerprint if found is None else found
        self._is_cut = True

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.policy_module.configure_optimizers()

    def on_fit_start(self) -> None:
        if self.collector.reference is not None:
            self.collector.reference.to(self.device)

    def on_train_start(self) -> None:
        if self.collector.sharding.passes_are_collective:
            cutter = self.collector.microbatches
            cutter.halvings = self.collector.ranks.first(
                lambda: max(cutter.halvings, read_halvings(self.halvings_file))
            )

    @property
    def halvings_file(self) -> Path:
        """Where a run that could not go on with its passes says how small the next start makes them."""
        return self.failure_folder.parent / "microbatch_halvings.json"

    def training_step(self, batch: int, batch_index: int) -> None:
        try:
            with self.collector.sharding.explained():
                self._step()
        except PassDoesNotFit:
            # Two ranks may say the same at once.
            with suppress(FileNotFoundError):
                write_halvings(self.halvings_file, self.collector.microbatches.halvings)
            raise

    def _step(self) -> None:
        rollout = self.collector.collect(
            self.rollout_step, self.prompts_drawn, progress=self.progress
        )
        if self.rollout_step + 1 < self.num_rollouts:
            self.collector.prepare(self.prompts_drawn + rollout.prompts_drawn)
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

    def _idle_while_sampling(self) -> Iterator[Tensor]:
        """State of the optimiser, and the copy that is the reference."""
        # Before a run begins it has no optimiser.
        if self._trainer is not None:
            optimizer: Any = self.optimizers()
            state = (value for one in optimizer.state.values() for value in one.values())
            yield from (value for value in state if isinstance(value, Tensor))
        reference = self.collector.reference
        if reference is not None and reference.is_copy:
            policy = {id(tensor) for tensor in self.policy_module.policy.parameters()}
            yield from (one for one in reference.policy.parameters() if id(one) not in policy)

    def _update(self, rollout: Rollout) -> dict[str, float]:
        """One optimiser step per minibatch. Terms are normalised by the minibatch, so gradients of
        its micro-batches, on whichever rank, add up to its own.
        """
        optimizer: Any = self.optimizers()
        ranks, means, sharding = self.collector.ranks, UpdateMeans(), self.collector.sharding
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for share in rollout.minibatches:
            part = trim(rollout.batch.select_groups(share.start, share.stop))
            if self.before_update is not None:
                self.before_update(rollout, part)
            sums = self.collector.microbatches.retried(part, partial(self._accumulate, share, part))
            if sharding.passes_are_collective:
                self.broken.stop_together(self.rollout_step)
                if not share.has_pictures:
                    # One process gives these none, so that its optimiser leaves them alone.
                    for parameter in self.policy_module.policy.picture_parameters():
                        parameter.grad = None
            else:
                ranks.sum_gradients(parameters)
            norm = torch.nn.utils.clip_grad_norm_(parameters, self.settings.max_grad_norm)
            grad_norm = full_tensor(norm)
            if not bool(torch.isfinite(grad_norm)):
                self.broken.stop("the gradient norm", grad_norm, part, None, self.rollout_step)
            self.policy_module.set_learning_rate(
                optimizer.param_groups,
                update=self.update_step,
                num_updates=self.num_rollouts * self.settings.updates_per_rollout,
            )
            optimizer.step()
            # Nothing reads it any more, and the next rollout has room for it.
            optimizer.zero_grad()
            self.update_step += 1
            means.add(ranks.sum_numbers(sums.numbers()), grad_norm=float(grad_norm))
        self._require_equal_weights(float(grad_norm))
        return {
            **means.means(),
            "update/learning_rate": float(optimizer.param_groups[0]["lr"]),
            "update/microbatch_halvings": self.collector.microbatches.halvings,
            "update/gradient_checkpointing": int(self.policy_module.policy.gradient_checkpointing),
        }

    def _require_equal_weights(self, grad_norm: float) -> None:
        """Ranks that train different policies without knowing it would report one of them.

        Ranks with the same shard have the same weights to the bit; all have the same gradient norm.
        """
        ranks, sharding = self.collector.ranks, self.collector.sharding
        if ranks.size == 1:
            return
        trained = trained_parameters(self.policy_module.policy)
        here = fingerprint({name: local_tensor(value) for name, value in trained.items()})
        remedy = f"They parted in rollout {self.rollout_step + 1}; the last checkpoint is that of rank 0."
        first_with: dict[int, tuple[int, str]] = {}
        for rank, (shard, theirs) in enumerate(ranks.gather((sharding.shard, here))):
            first, weights = first_with.setdefault(shard, (rank, theirs))
            if weights != theirs:
                raise RanksDiffer(
                    f"all ranks have the same weights; rank {first} has {weights!r} and rank {rank} has "
                    f"{theirs!r}. {remedy}"
                )
        ranks.require_equal({"gradient norm": grad_norm}, remedy=remedy)

    def _accumulate(
        self, share: MinibatchShare, whole: RolloutBatch, passes: Iterator[RolloutBatch]
    ) -> MinibatchSums:
        """Fills the gradients of a minibatch, from nothing: a failed attempt may have left some."""
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        sums = MinibatchSums()
        for part in passes:
            scores = self._score(part)
            terms = self._terms(part, scores, share.counts)
            self.manual_backward(terms["total"])
            sums.add("loss", terms)
            sums.add("policy", self.objective.diagnostics(part, scores, share.counts))
        for part in self.collector.microbatches.fillers(whole, share.fillers):
            terms = self._terms(part, self._score(part), share.counts)
            self.manual_backward(0.0 * terms["total"])
        return sums

    def _score(self, part: RolloutBatch) -> TokenScores:
        scores: TokenScores = self.policy_module.policy.score(
            part.groups,
            part.response_ids,
            part.response_mask,
            views=(IMAGE, *self.objective.needs.live_views),
            full_vocabulary=self.objective.needs.full_vocabulary,
        )
        return scores

    def _terms(
        self, part: RolloutBatch, scores: TokenScores, counts: MinibatchCounts
    ) -> dict[str, Tensor]:
        try:
            terms = self.objective(part, scores, minibatch=counts, progress=self.progress)
        except NonFiniteTermError as error:
            self.broken.found(
                f"the term {error.term}", error.value, part, scores, self.rollout_step
            )
            return {"total": error.total}
        if not bool(torch.isfinite(terms["total"])):
            self.broken.found("the total loss", terms["total"], part, scores, self.rollout_step)
        return terms

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        save_run(checkpoint, self)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        restore_run(checkpoint, self)
