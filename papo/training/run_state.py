"""The state of a run in its checkpoints, beside the trained weights and the optimiser: written, and put back."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from papo.parallel import Ranks
from papo.training.base_weights import leave_out_base, put_base_back
from papo.training.random_state import random_state, restore_random_state

if TYPE_CHECKING:
    from papo.training.module import TrainingModule


def save_run(checkpoint: dict[str, Any], module: "TrainingModule") -> None:
    """Adds the state of a run to what Lightning saves, and leaves out weights that are not trained."""
    collector = module.collector
    checkpoint["papo"] = {
        "rollout_step": module.rollout_step,
        "update_step": module.update_step,
        "prompts_drawn": module.prompts_drawn,
        "microbatch_halvings": _halvings_of_ranks(collector.microbatches.halvings, collector.ranks),
        "base": module.base_fingerprint,
        "reference": None if collector.reference is None else collector.reference.fingerprint,
        "ahead": collector.ahead.state(module.rollout_step),
    }
    leave_out_base(checkpoint, module.policy_module.policy)
    checkpoint["random_state"] = random_state()


def restore_run(checkpoint: dict[str, Any], module: "TrainingModule") -> None:
    """Goes on from what `save_run` wrote.

    Raises:
        ValueError: the policy that the run began with is another.
    """
    state, collector = checkpoint["papo"], module.collector
    reference, policy = collector.reference, module.policy_module
    if reference is not None and state["reference"] not in (None, reference.fingerprint):
        raise ValueError(
            "the initial policy differs from the one this run began with, so its reference policy "
            "cannot be restored; got another model behind the same model= settings. Restore the "
            "model, or start a new run in another run_dir."
        )
    put_base_back(checkpoint, policy.policy, module.base_fingerprint)
    module.rollout_step = state["rollout_step"]
    module.update_step = state["update_step"]
    module.prompts_drawn = state["prompts_drawn"]
    collector.microbatches.halvings = _own_halvings(state["microbatch_halvings"], collector.ranks)
    collector.ahead.restore(state.get("ahead"))
    # What Lightning saved of its counters is of the middle of an epoch.
    checkpoint.pop("loops")
    _set_progress(module.trainer.fit_loop, module.rollout_step, module.update_step)
    for optimizer in checkpoint.get("optimizer_states", ()):
        policy.restore_step(
            optimizer["param_groups"],
            on_gpu=module.trainer.strategy.root_device.type == "cuda",
        )
    restore_random_state(checkpoint["random_state"])


def return_to(path: Path, module: "TrainingModule") -> dict[str, Any]:
    """Gives a run that goes on the weights and the optimiser of one of its own checkpoints; all ranks call it.

    Whatever counts goes on counting, so that problems, masks and seeds are new ones. Responses that were written ahead
    are let go of: the policy that wrote them is left.

    Returns:
        The states of the callbacks that the checkpoint holds.
    """
    strategy, policy = module.trainer.strategy, module.policy_module
    checkpoint = strategy.load_checkpoint(path)
    put_base_back(checkpoint, policy.policy, module.base_fingerprint)
    for optimizer in checkpoint["optimizer_states"]:
        policy.restore_step(optimizer["param_groups"], on_gpu=strategy.root_device.type == "cuda")
    strategy.load_model_state_dict(checkpoint)
    strategy.load_optimizer_state_dict(checkpoint)
    module.collector.ahead.close()
    callbacks: dict[str, Any] = checkpoint["callbacks"]
    return callbacks


def _halvings_of_ranks(halvings: int, ranks: Ranks) -> int | list[int]:
    """Memory runs out on one rank, and not on another: a number each, one where there is one rank."""
    everyone = ranks.gather(halvings)
    return everyone if len(everyone) > 1 else everyone[0]


def _own_halvings(saved: int | list[int], ranks: Ranks) -> int:
    everyone = [saved] if isinstance(saved, int) else saved
    # Other ranks than those that saved have other groups: what fitted all of them fits.
    return everyone[ranks.rank] if len(everyone) == ranks.size else max(everyone)


def _set_progress(loop: Any, rollout_step: int, update_step: int) -> None:
    """Lets Lightning count on from these: files of ModelCheckpoint are named after them."""
    epochs, updates = loop.epoch_progress, loop.epoch_loop.manual_optimization.optim_step_progress
    for progress in (epochs.total, epochs.current):
        progress.ready = progress.started = rollout_step
        progress.processed = progress.completed = rollout_step
    updates.total.ready = updates.total.completed = update_step
    loop.epoch_loop.on_load_checkpoint({"_batches_that_stepped": rollout_step})
