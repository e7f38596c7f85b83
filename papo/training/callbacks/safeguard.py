"""Watches for a collapse while a run goes on: warns, steers what drives it, and goes back where that was not enough."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from papo.objective import Objective, Term, ViewEntropy
from papo.safeguard import CollapseDetector, Controller, Rollbacks
from papo.storage.tables import SAFEGUARD, append_jsonl
from papo.training.callbacks.record import finished_step
from papo.training.checkpoints import (
    DamagedCheckpoint,
    RolloutCheckpoint,
    checkpoint_path,
    checkpoints,
    require_whole,
)
from papo.training.run_state import return_to
from papo.types import IMAGE

_log = logging.getLogger(__name__)


class Safeguard(Callback):
    """Reads every rollout's metrics; rank 0 decides, all do it.

    Until it first steers or goes back, the run is the same to the bit without it. All that it remembers is in the
    checkpoints, so a resumed run does what the uninterrupted one would have done.

    Args:
        detector: rings.
        controller: of the weights of `steered_terms`; None: nothing is steered, and an alarm is only said.
        rollbacks: how often the run may go back; there with a controller alone.
    """

    def __init__(
        self,
        *,
        detector: CollapseDetector,
        controller: Controller | None = None,
        rollbacks: Rollbacks | None = None,
    ) -> None:
        assert (controller is None) == (rollbacks is None), (
            "a rollback makes steered weights smaller"
        )
        self.detector, self.controller, self.rollbacks = detector, controller, rollbacks
        self._parts: dict[str, Any] = {
            name: part
            for name, part in (
                ("detector", detector),
                ("controller", controller),
                ("rollbacks", rollbacks),
            )
            if part is not None
        }
        self._at_first = detector.state_dict()
        self._steered: tuple[str, ...] = ()
        self._said: set[str] = set()

    @property
    def rule(self) -> str | None:
        """What ended the run before its last rollout."""
        if self.rollbacks is None or not self.rollbacks.ended:
            return None
        return f"an alarm after safeguard.rollbacks.max_rollbacks={self.rollbacks.max_rollbacks}"

    @property
    def needs_checkpoints(self) -> bool:
        """Whether it goes back to checkpoints of the run."""
        return self.rollbacks is not None and self.rollbacks.max_rollbacks > 0

    def state_dict(self) -> dict[str, Any]:
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        return {**parts, "said": sorted(self._said)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, part in self._parts.items():
            part.load_state_dict(state_dict[name])
        self._said = set(state_dict["said"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module: Any = pl_module
        if self.controller is not None:
            self._steered = steered_terms(module.objective)
            if not self._steered and trainer.is_global_zero:
                _log.warning(
                    "safeguard=act steers what raises a divergence between views, and the objective raises none: an "
                    "alarm is only said."
                )
        self._steer(module)
        if self.needs_checkpoints and self._steered and module.rollout_step == 0:
            # Form can break in the first rollouts, before a checkpoint is due.
            trainer.save_checkpoint(
                checkpoint_path(Path(trainer.default_root_dir) / "checkpoints", 0)
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        module: Any = pl_module
        step = finished_step(module)
        ranks, folder = module.collector.ranks, Path(trainer.default_root_dir)
        row = {name: float(value) for name, value in step.metrics.items()}
        decided = ranks.first(lambda: self._decide(folder, step.rollout_step, row))
        if not ranks.writes:
            self.load_state_dict(decided["state"])
        step.metrics.update(decided["metrics"])
        if (back_to := decided["back_to"]) is not None:
            there = return_to(checkpoint_path(folder / "checkpoints", back_to), module)
            self.detector.load_state_dict(there[self.state_key]["detector"])
            for callback in trainer.checkpoint_callbacks:
                if isinstance(callback, RolloutCheckpoint):
                    callback.wanted = True
        self._steer(module)
        if self.rule is not None:
            trainer.should_stop = True

    def _steer(self, module: Any) -> None:
        if self.controller is not None:
            module.objective.factors = dict.fromkeys(self._steered, self.controller.factor)

    def _decide(self, folder: Path, rollout: int, row: Mapping[str, float]) -> dict[str, Any]:
        """What rank 0 makes of a rollout, for all ranks: plain values."""
        alarm, back_to = self.detector.update(row), None
        suspicion = self.detector.statistic / self.detector.limit
        metrics = {"safeguard/suspicion": suspicion, "safeguard/alarm": float(alarm is not None)}
        if self.controller is not None and self.rollbacks is not None:
            metrics["safeguard/factor"] = self.controller.factor
            self.rollbacks.note(rollout, suspicion)
            pushes = self.controller.update(row) if self._steered else None
            if pushes is not None:
                self._say_once(
                    folder,
                    rollout,
                    "steers",
                    f"the safeguard steers: the {pushes} left its bounds, so {', '.join(self._steered)} counts less until it is back (safeguard/factor)",
                )
        if alarm is not None:
            found = f"a collapse begins: {', '.join(alarm.signals)} (safeguard/suspicion {suspicion:.2f})"
            if self._steered:
                back_to = self._go_back(folder, rollout, found)
            else:
                self._say_once(folder, rollout, "alarm", found)
        if self.rollbacks is not None:
            metrics["safeguard/returned_to"] = math.nan if back_to is None else float(back_to)
        return {"metrics": metrics, "back_to": back_to, "state": self.state_dict()}

    def _go_back(self, folder: Path, rollout: int, found: str) -> int | None:
        """Returns the rollouts that the checkpoint to go on from follows; None: from where the run is."""
        assert self.controller is not None
        assert self.rollbacks is not None
        rollbacks, back_to = self.rollbacks, _newest_whole(folder / "checkpoints", self.rollbacks)
        rollbacks.went(back_to=back_to, rollout=rollout)
        self.controller.shrink(rollbacks.shrink)
        if back_to is None:
            # Nothing is left of what it was compared with.
            self.detector.load_state_dict(self._at_first)
        where = (
            "no healthy checkpoint is there, so it goes on from here"
            if back_to is None
            else f"it goes on from rollout {back_to}, with new problems"
        )
        names = ", ".join(self._steered)
        if rollbacks.ended:
            says = f"{found}. It was rollback {rollbacks.done} of at most {rollbacks.max_rollbacks}: the run ends with the weights of its last healthy checkpoint. Lower objective.gamma, or choose objective=papo_g_entropy"
        else:
            says = f"{found}; {where}, and {names} with at most {self.controller.ceiling:g} of its weight"
        self._say(folder, rollout, "rollback", says)
        return back_to

    def _say_once(self, folder: Path, rollout: int, what: str, says: str) -> None:
        if what not in self._said:
            self._said.add(what)
            self._say(folder, rollout, what, says)

    def _say(self, folder: Path, rollout: int, what: str, says: str) -> None:
        append_jsonl(folder / SAFEGUARD, {"rollout_step": rollout, "what": what, "says": says})
        _log.warning("rollout %d: %s.", rollout, says)


def steered_terms(objective: Objective) -> tuple[str, ...]:
    """The weighted terms that raise something between views, and the entropies that go with them.

    Entropies of the same views hold what is raised back with weights that fit its, and sampled ones of the image have no
    gradient in the mean (a score function) but noise: both fall with it. An exact entropy of the image stays.
    """
    weighted = {name: term for name, term in objective.terms.items() if term.weight}
    raised = {n for n, term in weighted.items() if term.direction == "raise" and term.needs.views}
    views = frozenset(view for name in raised for view in weighted[name].needs.views)
    return tuple(
        name
        for name, term in weighted.items()
        if name in raised or (views and _goes_with(term, views))
    )


def _goes_with(term: Term, views: frozenset[str]) -> bool:
    if isinstance(term, ViewEntropy) and term.view == IMAGE:
        return term.estimator == "sampled"
    return bool(term.needs.views) and term.needs.views <= views


def _newest_whole(folder: Path, rollbacks: Rollbacks) -> int | None:
    there = checkpoints(folder)
    while (step := rollbacks.choose(there)) is not None:
        try:
            require_whole(there[step])
            return step
        except (DamagedCheckpoint, FileNotFoundError):
            del there[step]
    return None
