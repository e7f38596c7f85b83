"""What each term does to the policy while it trains: `gradient/*` in the metrics, and what cannot be right, named."""

import json
import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from papo.machine.out_of_memory import is_out_of_memory, release_memory
from papo.objective import NonFiniteTermError, Objective
from papo.statistics.term_gradients import PREFIX
from papo.storage.tables import FAULTS, append_jsonl, columns_of
from papo.training.callbacks.record import finished_step
from papo.training.collect import Rollout
from papo.training.draft import DrawnPrompt
from papo.training.term_gradients import column_names, first_that_learn, measure_terms
from papo.types import RolloutBatch

_log = logging.getLogger(__name__)


class TermGradients(Callback):
    """Measures the gradient of every weighted term before every n-th update; other rollouts have no number (NaN).

    Of the first pass of rank 0 alone, at most `prompts` prompts of it. The run is the same to the bit without it.

    Args:
        every_updates: measured before the first update and every n-th; 0: never.
        prompts: how many at most.
        on_fault: what follows where a term, a view or a credit cannot do what its weight says: `warn`, once for
            each, or `stop`. Both write it to faults.jsonl.

    Raises:
        ValueError: a setting is out of its range.
    """

    def __init__(self, *, every_updates: int, prompts: int, on_fault: str) -> None:
        for name, value, least in (("every_updates", every_updates, 0), ("prompts", prompts, 1)):
            if value < least:
                raise ValueError(f"callbacks.term_gradients.{name} is {least} or more; got {value}")
        if on_fault not in ("warn", "stop"):
            raise ValueError(f"callbacks.term_gradients.on_fault is warn or stop; got {on_fault!r}")
        self.every_updates = every_updates
        self.prompts = prompts
        self.on_fault = on_fault
        self._names: list[str] = []
        self._measured: list[dict[str, float]] = []
        self._said: set[str] = set()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module: Any = pl_module
        names = column_names(module.objective, module.policy_module.policy)
        # The first row of a table decides its columns, also for a run that is continued with another setting.
        columns = columns_of(Path(trainer.default_root_dir) / "metrics.csv")
        if columns is not None:
            self._names = [name for name in columns if name.startswith(PREFIX)]
        elif self.every_updates and not module.collector.sharding.passes_are_collective:
            self._names = names
        if not self.every_updates or not self._names:
            return
        faults = Path(trainer.default_root_dir) / FAULTS
        if faults.exists():
            self._said = {
                json.loads(line)["key"] for line in faults.read_text("utf-8").splitlines()
            }

        def before_update(rollout: Rollout, minibatch: RolloutBatch) -> None:
            if module.update_step % self.every_updates == 0:
                self._measure(trainer, module, rollout, minibatch)

        module.before_update = before_update

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        module: Any = pl_module
        module.before_update = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        found: dict[str, list[float]] = defaultdict(list)
        for numbers in self._measured:
            for name, value in numbers.items():
                if not math.isnan(value):
                    found[name].append(value)
        self._measured = []
        finished_step(pl_module).metrics.update({name: _mean(found[name]) for name in self._names})

    def _measure(
        self, trainer: Trainer, module: Any, rollout: Rollout, minibatch: RolloutBatch
    ) -> None:
        """Rank 0 measures, all hear of it: a fault ends them together."""
        numbers, faults = module.collector.ranks.first(
            lambda: self._measured_here(module, minibatch)
        )
        self._measured.append(numbers)
        faults |= faults_of_credits(module.objective, rollout.credit)
        faults |= faults_of_pictures(rollout.changed, rollout.draft.prompts)
        for key, says in faults.items():
            if key in self._said:
                continue
            self._said.add(key)
            text = f"{key}: {says}."
            if trainer.is_global_zero:
                record = {"rollout_step": module.rollout_step + 1, "key": key, "says": says}
                append_jsonl(Path(trainer.default_root_dir) / FAULTS, record)
            if self.on_fault == "stop":
                raise ValueError(
                    f"{text} callbacks.term_gradients.on_fault=warn trains all the same."
                )
            if trainer.is_global_zero:
                _log.warning("%s", text)

    def _measured_here(
        self, module: Any, minibatch: RolloutBatch
    ) -> tuple[dict[str, float], dict[str, str]]:
        [part, *_] = module.collector.microbatches(first_that_learn(minibatch, self.prompts))
        try:
            measures = measure_terms(
                module.policy_module.policy,
                module.objective,
                part,
                progress=module.progress,
                looks=module.update_step == 0,
            )
        except NonFiniteTermError:
            # The update meets it too, and says which batch it was.
            return {}, {}
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).splitlines()[0]
        else:
            return measures.numbers, {
                **measures.faults,
                **faults_of_choices(minibatch.term_weights),
            }
        # Only here, where the exception and the tensors of its frames are gone.
        release_memory()
        _log.warning("out of memory while the terms were measured: left out (%s)", reason)
        return {}, {}


def faults_of_credits(objective: Objective, moved: Mapping[str, float]) -> dict[str, str]:
    """Credits that mean to weigh the tokens that they choose, and do not, by what `credit_metrics` says."""
    weighs = [name for name, credit in objective.credits.items() if credit.weighs]
    if not weighs or not moved or moved["credit/zero_share"] == 0.0:
        return {}
    # Equal where, and only where, all weights that are not 0 have the same size (Cauchy and Schwarz).
    kept = 1.0 - moved["credit/zero_share"]
    if not math.isclose(moved["credit/effective_share"], kept, rel_tol=1e-6):
        return {}
    return {
        f"objective.credits.{name}": (
            "gives every token that keeps an advantage the same weight: its factor is at work nowhere. Choose the "
            "scope of its statistics larger than a response"
        )
        for name in weighs
    }


def faults_of_pictures(views: Iterable[str], prompts: Sequence[DrawnPrompt]) -> dict[str, str]:
    """Views of a rollout without any picture to hide."""
    if not (names := ", ".join(sorted(views))) or any(prompt.has_picture for prompt in prompts):
        return {}
    return {
        "data": f"no prompt of the rollout has a picture, so the views ({names}) show what the image shows"
    }


def faults_of_choices(term_weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Terms that choose among the tokens of a minibatch, and chose none."""
    return {
        f"objective.terms.{name}": "chooses no token of the minibatch, so nothing of it is learned"
        for name, weights in term_weights.items()
        if not bool(weights.any())
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
