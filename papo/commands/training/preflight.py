"""What is missing for a planned run, said before a model is loaded: memory, devices, disk, pictures."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from omegaconf import DictConfig

from papo.commands.benchmarks import check_model_of
from papo.commands.constructor_arguments import refusals_named
from papo.commands.run_memory import run_memory, unloaded_run_memory
from papo.commands.training.ending import console
from papo.commands.training.held_out import preflight_held_out
from papo.commands.training.plan import Plan, require_enough
from papo.data import MixedProblems, ProblemTable, Virl39kProblems, notes_on
from papo.lab import LabReward
from papo.masking import check_mask
from papo.parallel import NoSharding, Ranks, Sharding
from papo.rewards import PartlyLabelled
from papo.rollout import preflight_engine
from papo.training import (
    Collector,
    RolloutCheckpoint,
    RunFolder,
    RunMemory,
    available_bytes,
    build_trainer,
    check_room,
    checkpoint_bytes,
    longest_prompt,
)
from papo.training.callbacks import PhaseProgress
from papo.types import ImageMask
from papo.views import MaskedView

WITHOUT_MASKED_VIEW = "objective=grpo"


# Prompts that are read for the estimate of memory.
PROMPTS_FOR_ESTIMATE = 16


def preflight(
    plan: Plan, ranks: Ranks, device: torch.device, shards: int
) -> tuple[bool, tuple[str, ...]]:
    """Says what is missing before a model is loaded, and, but for what stands in the data, within seconds.

    Returns whether passes compute activations again, and what must be known of that and of how the data are read.

    Raises:
        ValueError, FileNotFoundError, MemoryError: with the override that helps.
    """
    check_reward_fits(plan.source, plan.reward)
    for part in (plan.source, plan.image_mask):
        if hasattr(part, "preflight"):
            part.preflight()
    model, free = plan.config.model, available_bytes(device)
    if hasattr(plan.source, "require_start"):
        plan.source.require_start(model.get("path"))
    check_model_of(plan.source, model.get("path"), plan.config.rollout.max_response_tokens)
    notes: tuple[str, ...] = ()
    recomputes = bool(model.gradient_checkpointing)
    if "hub_id" in model or model.gradient_checkpointing == "auto":
        facts = memory_facts(plan, device, shards)
        unloaded = unloaded_run_memory(
            plan.config, plan.settings, available=free, ranks=ranks, **facts
        )
        memory, notes = unloaded.memory, unloaded.notes
        check_room(memory, name=unloaded.name, available=free, instead=unloaded.instead)
        recomputes = memory.checkpointing
    if plan.evaluations is not None:
        preflight_held_out(
            plan.evaluations.held_out,
            model.get("path"),
            plan.config.rollout.max_response_tokens,
        )
    preflight_engine(
        plan.make_engine, longest_prompt=getattr(plan.source, "max_prompt_tokens", None) or 1
    )
    make_trainer(plan, [], ranks, device, NoSharding())
    # These read the data, which may have to come from the hub.
    if plan.objective.needs.views or plan.sampled_from:
        masks = [view.mask for view in plan.views.values() if isinstance(view, MaskedView)]
        for mask in (plan.image_mask, *masks):
            if isinstance(mask, ImageMask):
                check_mask(mask, plan.source, remedy=WITHOUT_MASKED_VIEW)
    about_data = notes_on(plan.source)
    if not isinstance(plan.source, MixedProblems):  # which may show one several times
        require_enough(plan.source, plan.settings)
    return recomputes, (*notes, *about_data)


def check_reward_fits(source: Any, reward: Any) -> None:
    """Raises ValueError where the lab's reward, which knows what was drawn, is to grade problems of files or the hub."""
    if isinstance(reward, PartlyLabelled):
        reward = reward.reward
    parts = source.sets.values() if isinstance(source, MixedProblems) else [source]
    of_files = any(isinstance(one, ProblemTable | Virl39kProblems) for one in parts)
    if isinstance(reward, LabReward) and of_files:
        raise ValueError(
            "the lab's reward grades drawn scenes of known truth, and these problems are read from files. Set "
            "reward=math (+experiment=own_data does), or data=perception_lab."
        )


def make_sharding(config: DictConfig, ranks: Ranks, device: torch.device) -> Sharding | NoSharding:
    """How the policy is spread over the ranks; the settings are checked."""
    if ranks.size == 1 or config.trainer.get("strategy") != "shards":
        return NoSharding()
    return Sharding(
        ranks=ranks,
        shard_size=config.trainer.get("shard_size"),
        device_type=device.type,
        half_precision="16" in str(config.trainer.precision),
    )


def make_trainer(
    plan: Plan,
    loggers: list[Any],
    ranks: Ranks,
    device: torch.device,
    sharding: Sharding | NoSharding,
) -> Trainer:
    """Returns Lightning's Trainer.

    Raises:
        ValueError: Lightning refuses its settings.
    """
    with refusals_named(plan.config.trainer, "trainer"):
        return build_trainer(
            plan.make_trainer,
            folder=Path(plan.config.run_dir),
            callbacks=[
                one
                for one in plan.callbacks
                if not (console.quiet and isinstance(one, PhaseProgress))
            ],
            loggers=loggers,
            ranks=ranks,
            device=device,
            sharding=sharding,
        )


def require_room_for_checkpoints(plan: Plan, policy: Any, folder: RunFolder) -> None:
    """Raises ValueError where the disk would be full before the run has its last checkpoint."""
    size = checkpoint_bytes(policy, plan.make_optimizer)
    for callback in plan.callbacks:
        if isinstance(callback, RolloutCheckpoint):
            callback.require_room(
                folder.checkpoint_folder,
                size,
                keeps_best=plan.validation.every_rollouts > 0 and plan.validation.keep_best,
            )


def memory_facts(plan: Plan, device: torch.device, shards: int) -> dict[str, Any]:
    """What the memory of a run depends on beside its model and prompts."""
    return {
        "objective": plan.objective,
        "make_optimizer": plan.make_optimizer,
        "on_gpu": device.type == "cuda",
        "shards": shards,
    }


def memory_of(plan: Plan, collector: Collector, device: torch.device) -> RunMemory:
    """What a step needs, were all prompts like the longest of the first few."""
    policy: Any = collector.policy
    num_prompts = min(PROMPTS_FOR_ESTIMATE, plan.settings.prompts_per_rollout)
    prompt_tokens, patches = longest_prompt(policy.encode(collector.prompts.take(0, num_prompts)))
    return run_memory(
        plan.config,
        plan.settings,
        model=policy.model,
        checkpointing=policy.gradient_checkpointing,
        prompt_tokens=prompt_tokens,
        patches=patches,
        **memory_facts(plan, device, collector.sharding.shard_size),
    )


def room_of(plan: Plan, collector: Collector, device: torch.device) -> list[str]:
    """Says what of a run's settings its device has room for."""
    # On the CPU the weights are there already, and were counted before.
    free = available_bytes(device) if device.type == "cuda" else None
    memory = memory_of(plan, collector, device)
    return check_room(memory, name="the policy", available=free, instead={})
