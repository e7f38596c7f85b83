"""Trains a policy with PAPO: `python train.py`, `python train.py +experiment=papo_geo3k`, ...

Composes conf/train.yaml, checks every setting before anything is loaded, builds the parts, trains,
and ends with a table. The algorithm is papo/training/collect.py and papo/training/module.py.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import torch
import transformers
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch import Callback, Trainer, seed_everything
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

import front_door
from constructors import allow_packages, read_run_config
from front_door import instantiate, instantiate_each, make_objective
from lab_settings import check_settings_are_meant
from on_ranks import (
    end_recorded,
    launch_ranks,
    locked_on_ranks,
    opened_on_ranks,
    require_same_start,
    weight_source,
)
from papo.data import FilteredProblems, notes_on
from papo.lab import (
    LabReport,
    PerceptionLabProblems,
    check_model_speaks,
    compare_reports,
    evaluate_lab,
    held_out_sets,
    shortest_response,
)
from papo.masking import check_mask, require_pictures
from papo.models import VisionTowerSaliency
from papo.objective import ClippedSurrogate, Objective, ViewKL
from papo.parallel import NoSharding, Ranks, Sharding, check_processes, device_of_process
from papo.rewards import PartlyLabelled
from papo.rollout import (
    check_ahead,
    check_ahead_alone,
    check_importance_cap,
    check_samples_views,
    check_sampling,
    preflight_engine,
)
from papo.training import (
    LENGTH_KEY,
    PROCESS_KEYS,
    Collector,
    DataFingerprint,
    NoOffload,
    Offload,
    PolicyModule,
    PromptStream,
    ReferenceModule,
    RolloutCheckpoint,
    RunFolder,
    RunMemory,
    Start,
    TrainingModule,
    TrainingSettings,
    available_bytes,
    build_trainer,
    check_group_size,
    check_offload,
    check_room,
    check_sampled_from,
    check_seed,
    check_share,
    check_strategy,
    check_threads,
    check_trainer_keys,
    check_updates_arrive,
    checkpoint_bytes,
    finish_loggers,
    fit,
    longest_prompt,
    newest_checkpoint,
    training_settings,
    try_optimizer,
)
from papo.types import IMAGE, ImageMask
from papo.views import MASKED, MaskedView, View
from run_memory import run_memory, unloaded_run_memory

KNOWN_KEYS = (
    *("model", "data", "reward", "fidelity", "masking", "rollout", "objective", "optimizer"),
    *(
        "trainer",
        "logger",
        "callbacks",
        "training",
        "evaluation",
        "seed",
        "num_threads",
        "run_dir",
        "resume",
        "sweep",
        "allow",
    ),
)

# What a command may set without giving up the settings of the run it continues: groups and keys.
BESIDE_OWN_SETTINGS = (
    "run_dir",
    "resume",
    "allow",
    "logger",
    "callbacks",
    LENGTH_KEY,
    "model.trust_remote_code",
    *PROCESS_KEYS,
)

WITHOUT_MASKED_VIEW = "objective=grpo"

# Prompts that are read for the estimate of memory.
PROMPTS_FOR_ESTIMATE = 16

# Threads per GPU that decode and cut the pictures of prompts.
PROMPT_WORKERS = 4

# Problems that are read on all ranks to see that they have the same data.
PROBLEMS_COMPARED = 16

# Without a terminal rich assumes 80 columns; the table at the end needs more.
console = Console(width=None if sys.stdout.isatty() else 120)
transformers.logging.disable_progress_bar()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything of a run that exists before a model is loaded, checked."""

    config: DictConfig
    settings: TrainingSettings
    num_responses: int
    seed: int
    objective: Objective
    views: dict[str, View]
    sampled_from: dict[str, int]
    image_mask: Any
    reward: Any
    source: Any
    make_engine: Callable[..., Any]
    ahead: int
    make_optimizer: Callable[..., Any]
    learning_rate: float
    make_trainer: Callable[..., Trainer]
    callbacks: list[Callback]
    recomputes: bool = False
    """Activations; decided by `preflight` where `model.gradient_checkpointing` is `auto`."""


def saved_rollouts(folder: Path) -> str:
    """Says how far the run in a folder can be continued from."""
    newest = newest_checkpoint(folder / "checkpoints")
    return f"is saved up to {newest.stem}" if newest else "holds no checkpoint yet"


@front_door.clear_errors(reached=saved_rollouts, resumes_alone=True, on_ranks=True)
def task(config: DictConfig, ranks: Ranks) -> float:
    """One run, or one rank of it. Returns the mean reward of the last rollout, for sweepers."""
    console.quiet = not ranks.writes
    # Of the command line: what a run folder says of it is not read.
    allow_packages(OmegaConf.to_container(config).get("allow"))
    front_door.apply_arm(config)
    check_settings_are_meant(config)
    folder = RunFolder(front_door.run_dir())
    OmegaConf.update(config, "run_dir", str(folder.path))
    keys = [key for key, _ in front_door.overridden_keys()]
    if config.resume and folder.holds_run() and names_no_setting(keys):
        # Whatever else of the folder was deleted.
        if LENGTH_KEY not in keys and ranks.first(folder.is_finished):
            return show_end(folder)
        config = own_settings(config, folder)
    start = Start(
        config=OmegaConf.to_container(config, resolve=True),
        config_text=OmegaConf.to_yaml(config, resolve=True),
        overrides=list(HydraConfig.get().overrides.task),
        resume=config.resume,
        sets_length=LENGTH_KEY in keys,
    )
    # Before anything is opened for writing, or built: what is finished stays as it is.
    if ranks.first(lambda: folder.is_done(start)):
        return show_end(folder)
    plan = make_plan(config)
    check_length(plan, folder, start)
    num_processes = check_processes(
        devices=config.trainer.devices,
        num_nodes=config.trainer.get("num_nodes", 1),
        section="trainer.",
        group="trainer=replicas",
        script="train.py",
        ranks=ranks,
    )
    check_ahead_alone(plan.ahead, num_processes)
    check_share(num_processes, prompts_per_minibatch=plan.settings.prompts_per_minibatch)
    require_same_start(ranks, start.config, start.overrides)
    shards = check_strategy(
        strategy=config.trainer.get("strategy"),
        shard_size=config.trainer.get("shard_size"),
        precision=config.trainer.precision,
        processes=num_processes,
    )
    device = device_of_process(
        config.trainer.get("accelerator", "auto"),
        devices=config.trainer.devices,
        ranks=ranks,
        key="trainer.accelerator",
        section="trainer.",
    )
    check_offload(config.trainer.get("offload_while_sampling"), device)
    recomputes, notes = preflight(plan, ranks, device, shards)
    if num_processes > ranks.size:
        launch_ranks(__file__, num_processes=num_processes, run_dir=folder.path)
        return float(folder.final_metrics()["reward/mean"])
    with locked_on_ranks(folder.path, ranks):
        # Another process may have finished it meanwhile.
        if ranks.first(lambda: folder.is_done(start)):
            return show_end(folder)
        folder.checkpoint = open_folder(folder, start, ranks)
        for note in notes:
            say(note)
        return run_in(folder, replace(plan, recomputes=recomputes), start, ranks, device)


# A launcher's process finds `task` by its name; a function without one it would get as a copy, with the state
# of this process.
main = hydra.main(config_path=front_door.CONFIG_FOLDER, config_name="train", version_base="1.3")(
    task
)


def open_folder(folder: RunFolder, start: Start, ranks: Ranks) -> Path | None:
    """Opens the run folder; returns the checkpoint that all ranks go on from.

    Raises:
        ValueError: a rank does not see the folder, or the checkpoint.
    """

    def opened() -> str | None:
        folder.open(start)
        return None if folder.checkpoint is None else str(folder.checkpoint)

    checkpoint = opened_on_ranks(folder.path, ranks, opened)
    if checkpoint is not None and not Path(checkpoint).exists():
        raise ValueError(
            f"all ranks go on from {checkpoint}, and rank {ranks.rank} does not find it. Set run_dir to a folder on a "
            "disk that all machines share."
        )
    return None if checkpoint is None else Path(checkpoint)


def run_in(
    folder: RunFolder, plan: Plan, start: Start, ranks: Ranks, device: torch.device
) -> float:
    """The run, and a record of how it ended."""
    loggers: list[Any] = []
    failed = True
    try:
        with end_recorded(ranks, folder.write_result):
            reward = run(plan, folder, start, loggers, ranks, device)
        failed = False
        return reward
    finally:
        finish_loggers(loggers, failed=failed)
        if hasattr(plan.reward, "close"):
            plan.reward.close()


def names_no_setting(keys: Sequence[str]) -> bool:
    """Whether a command says only where a run is, who watches it and how long it is."""
    return all({key, key.split(".")[0]} & {*BESIDE_OWN_SETTINGS} for key in keys)


def own_settings(config: DictConfig, folder: RunFolder) -> DictConfig:
    """Returns the settings of the run that the folder holds; what the command line sets wins.

    Raises:
        ValueError: the folder's settings lack a key that this version reads, or construct what only the
            command line may ask for.
    """
    keys = front_door.overridden_keys()
    given = ("run_dir", "resume", "allow", *(key for key, _ in keys))
    before = read_run_config(folder.path / "config.yaml", given=given)
    if missing := sorted({*KNOWN_KEYS} & {*config} - {*before, *given}):
        raise ValueError(
            f"{folder.path / 'config.yaml'} was written by another version and lacks {missing[0]}; continue "
            "the run with that version (run.json names its commit), or name every setting"
        )
    own = OmegaConf.create(_moved(before, folder.settings().get("run_dir"), config.run_dir))
    for key in ("run_dir", "resume", "allow"):
        OmegaConf.update(own, key, config[key], force_add=True)
    for key, is_deleted in keys:
        if is_deleted:
            front_door.delete(own, key)
        else:
            value = OmegaConf.select(config, key)
            OmegaConf.update(own, key, value, merge=False, force_add=True)
    return own


def _moved(settings: dict[str, Any], before: object, now: str) -> dict[str, Any]:
    """The settings of a folder that may have been moved: what watches the run writes to where it is now."""

    def here(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: here(item) for key, item in value.items()}
        return now if value == before else value

    watchers = {key: here(settings[key]) for key in ("logger", "callbacks") if key in settings}
    return {**settings, **watchers}


def check_length(plan: Plan, folder: RunFolder, start: Start) -> None:
    """Refuses another number of rollouts for a run whose schedule it would stretch.

    Without a schedule the longer run is, to the bit, the one that was begun so long.

    Raises:
        ValueError: the objective's weights depend on how much of the run is done.
    """
    anneals = any(
        isinstance(view, MaskedView) and view.depends_on_progress for view in plan.views.values()
    )
    if (plan.objective.depends_on_progress or anneals) and folder.changes_length(start):
        raise ValueError(
            "objective.gamma_anneal_until, anneal_until of a term or an annealed view fades weights over the whole run, "
            f"so with {LENGTH_KEY}={start.num_rollouts} the rollouts that are done would have been "
            "others. Leave it out, or start a new run in another run_dir."
        )


def make_plan(config: DictConfig) -> Plan:
    """Checks every setting and builds what needs no model.

    Raises:
        ValueError: an impossible setting, with its key.
    """
    front_door.check_known_keys(config, KNOWN_KEYS)
    settings = training_settings(OmegaConf.to_container(config.training, resolve=True))
    check_threads(config.num_threads)
    check_trainer_keys(config.trainer)
    check_built_later(config)
    make_optimizer = instantiate(config.optimizer)
    with front_door.refusals_named(config.optimizer, "optimizer"):
        [group] = try_optimizer(make_optimizer).param_groups
    if group.get("lr") is None:
        raise ValueError("the learning rate is part of a run's metrics; set optimizer.lr")
    objective = make_objective(config)
    make_engine = instantiate(config.rollout, without=("num_responses", "ahead"))
    num_responses = check_group_size(config.rollout.num_responses)
    views = make_views(config, objective)
    plan = Plan(
        config=config,
        settings=settings,
        num_responses=num_responses,
        seed=check_seed(config.seed),
        objective=objective,
        views=views,
        sampled_from=check_sampled_from(
            config.objective.get("sampled_from") or {},
            {MASKED, *views},
            num_responses=num_responses,
        ),
        image_mask=instantiate(config.masking),
        reward=instantiate(config.reward),
        source=instantiate(config.data),
        make_engine=make_engine,
        ahead=check_ahead(config.rollout.get("ahead", 0), make_engine),
        make_optimizer=make_optimizer,
        learning_rate=float(group["lr"]),
        make_trainer=instantiate(
            config.trainer, without=("strategy", "shard_size", "offload_while_sampling")
        ),
        callbacks=[instantiate(node) for node in config.callbacks.values()],
    )
    check_sampling(
        temperature=config.rollout.temperature,
        top_p=config.rollout.top_p,
        top_k=config.rollout.top_k,
        max_response_tokens=config.rollout.max_response_tokens,
    )
    check_importance_cap(
        importance_cap_of(plan.objective),
        plan.make_engine,
        top_p=config.rollout.top_p,
        top_k=config.rollout.top_k,
        ahead=plan.ahead,
        from_views=bool(plan.sampled_from),
    )
    if plan.sampled_from:
        check_samples_views(plan.make_engine, ahead=plan.ahead)
    check_credits(plan)
    check_labels(plan)
    if is_lab(plan):
        require_enough(plan.source, settings)
        require_room(plan.source, config.rollout.max_response_tokens)
    return plan


def check_built_later(config: DictConfig) -> None:
    """Checks the arguments of what is built once the run has begun: the model and the loggers."""
    front_door.check_node(config.model)
    for node in config.logger.values():
        front_door.check_node(node)
        if "mode" in node:
            front_door.check_wandb(node.mode, key=f"{front_door.key_of(node)}.mode")


def importance_cap_of(objective: Objective) -> float | None:
    """The cap of the correction for the engine; None where no term corrects."""
    surrogates = [term for term in objective.terms.values() if isinstance(term, ClippedSurrogate)]
    return next((cap for term in surrogates if (cap := term.importance_cap) is not None), None)


def check_credits(plan: Plan) -> None:
    """Raises ValueError where groups or rewards are not such as the credits need."""
    for name, credit in plan.objective.credits.items():
        with front_door.settings_named(plan.config.objective.credits[name]):
            credit.check_group(plan.num_responses)
    if plan.objective.needs.flagged and not getattr(plan.reward, "flags_claims", False):
        raise ValueError(
            "objective.credits needs a reward that says which claims of a response are false, as reward=lab does; got "
            f"{type(plan.reward).__name__}. Set reward=lab, or another objective."
        )


def check_labels(plan: Plan) -> None:
    """Raises ValueError where the run would train on answers that its reward says nobody knows."""
    if not isinstance(plan.reward, PartlyLabelled):
        return
    terms = plan.objective.terms.values()
    gates = {term.gate for term in terms if isinstance(term, ViewKL)} - {"all"}
    for key, off, reads in (
        ("objective.gate", "all", next(iter(gates), "all")),
        ("training.max_resample", 0, plan.settings.max_resample),
    ):
        if reads != off:
            raise ValueError(
                f"reward.labelled_share hides answers, and {key}={reads} acts on the verdict about "
                f"every answer. Set {key}={off}, or a reward that knows all answers."
            )


def preflight(
    plan: Plan, ranks: Ranks, device: torch.device, shards: int
) -> tuple[bool, tuple[str, ...]]:
    """Says what is missing before a model is loaded, and, but for what stands in the data, within seconds.

    Returns whether passes compute activations again, and what must be known of that and of how the data are read.

    Raises:
        ValueError, FileNotFoundError, MemoryError: with the override that helps.
    """
    for part in (plan.source, plan.image_mask):
        if hasattr(part, "preflight"):
            part.preflight()
    model, free = plan.config.model, available_bytes(device)
    recomputes, notes = bool(model.gradient_checkpointing), ()
    if "hub_id" in model or model.gradient_checkpointing == "auto":
        facts = memory_facts(plan, device, shards)
        unloaded = unloaded_run_memory(
            plan.config, plan.settings, available=free, ranks=ranks, **facts
        )
        memory, notes = unloaded.memory, unloaded.notes
        check_room(memory, name=unloaded.name, available=free, instead=unloaded.instead)
        recomputes = memory.checkpointing
    if is_lab(plan) and model.get("path"):
        check_model_speaks(model.path, plan.source.shape)
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
    return recomputes, (*notes, *notes_on(plan.source))


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
    with front_door.refusals_named(plan.config.trainer, "trainer"):
        return build_trainer(
            plan.make_trainer,
            folder=Path(plan.config.run_dir),
            callbacks=plan.callbacks,
            loggers=loggers,
            ranks=ranks,
            device=device,
            sharding=sharding,
        )


def run(
    plan: Plan,
    folder: RunFolder,
    start: Start,
    loggers: list[Any],
    ranks: Ranks,
    device: torch.device,
) -> float:
    """Builds the rest, trains, evaluates and writes result.json."""
    config = plan.config
    seed_everything(plan.seed, verbose=False)
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    if ranks.writes:
        loggers.extend(instantiate(node) for node in config.logger.values())
    for logger in loggers:
        logger.log_hyperparams(OmegaConf.to_container(config, resolve=True))
    sharding = make_sharding(config, ranks, device)
    trainer = make_trainer(plan, loggers, ranks, device, sharding)
    policy = initial_policy(plan, sharding)
    engine = plan.make_engine(policy=policy)
    module = make_module(
        plan,
        policy,
        engine,
        usable_problems(plan, policy, folder, ranks),
        ranks,
        sharding,
        device=device,
        failure_folder=folder.path / "non_finite",
    )
    for note in room_of(plan, module.collector, device):
        say(note)
    ranks.first(lambda: require_room_for_checkpoints(plan, policy, folder))
    module.configure_model()
    lost = check_updates_arrive(
        (p for p in policy.parameters() if p.requires_grad),
        learning_rate=plan.learning_rate,
        precision=str(trainer.precision),
    )
    if lost:
        console.print(lost, highlight=False, soft_wrap=True)
    reports = {}
    if is_lab(plan):
        with sharding.whole(policy):
            module.collector.follow(module.rollout_step)
            reports["before"] = evaluate(plan, policy, engine, ranks)
    for note in ranks.first(lambda: folder.go_on(start)):
        say(note)
    ended_early = fit(trainer, module, folder.checkpoint)
    if ended_early:
        say(ended_early)
    if is_lab(plan):
        with sharding.whole(policy):
            module.collector.follow(module.rollout_step)
            reports["after"] = evaluate(plan, policy, engine, ranks)
        console.print(compare_reports(reports))
    if ranks.writes:
        folder.write_result(
            "finished",
            metrics=folder.last_metrics(),
            evaluation={moment: report.to_dict() for moment, report in reports.items()},
            **({"ended_early": ended_early} if ended_early else {}),
        )
    ranks.wait_for_all()
    return show_end(folder)


def initial_policy(plan: Plan, sharding: Sharding | NoSharding) -> Any:
    """The policy; where ranks share its weights, those in files stay there until each reads its part."""
    model = plan.config.model
    stays = sharding.passes_are_collective and "hub_id" in model
    policy = instantiate(model, **({"leave_in_files": True} if stays else {}))
    if plan.recomputes:
        policy.recompute_activations()
    return policy


def make_module(
    plan: Plan,
    policy: Any,
    engine: Any,
    source: Any,
    ranks: Ranks,
    sharding: Sharding | NoSharding,
    *,
    device: torch.device,
    failure_folder: Path,
) -> TrainingModule:
    """Returns what is trained, with all that a step of it does.

    Args:
        plan: of the run.
        policy: just loaded; the reference may be a copy of it.
        engine: samples its responses.
        source: the problems that can be trained on.
        ranks: the processes of the run.
        sharding: of the weights over them.
        device: where it computes.
        failure_folder: where the batch of a non-finite loss goes.
    """
    objective = plan.objective
    return TrainingModule(
        policy_module=PolicyModule(policy=policy, make_optimizer=plan.make_optimizer),
        collector=Collector(
            policy=policy,
            # May copy the initial policy, so it is made before a checkpoint is restored.
            reference=reference_of(plan, policy, sharding),
            views={
                MASKED: MaskedView(mask=finished_mask(plan.image_mask, policy)),
                **plan.views,
            },
            engine=engine,
            reward=plan.reward,
            prompts=PromptStream(source=source, seed=plan.seed),
            settings=plan.settings,
            num_responses=plan.num_responses,
            needs=objective.needs,
            sampled_from=plan.sampled_from,
            credit=objective.credit if objective.reads_rollouts else None,
            seed=plan.seed,
            ranks=ranks,
            sharding=sharding,
            weights=weight_source(policy, failure_folder.parent, ranks),
            offload=Offload(pinned=True)
            if plan.config.trainer.get("offload_while_sampling")
            else NoOffload(),
            # A CPU that trains has no time to spare for others.
            prompt_workers=PROMPT_WORKERS if device.type == "cuda" else 0,
            packs_pictures=device.type == "cuda",
            rollouts_ahead=plan.ahead,
        ),
        objective=objective,
        failure_folder=failure_folder,
    )


def make_views(config: DictConfig, objective: Objective) -> dict[str, View]:
    """The views of objective.views; `masked` is what masking= hides, and is made once the policy is there.

    Raises:
        ValueError: the objective looks at a view that is not there, or the image itself is one of them.
    """
    views = instantiate_each(config.objective, "views", View)
    if IMAGE in views:
        raise ValueError(
            f"a view has a name of its own; got objective.views.{IMAGE}, the prompt as it is"
        )
    if missing := sorted(objective.needs.views - {MASKED, *views}):
        raise ValueError(
            f"a term or credit of the objective looks at the view {missing[0]!r}; got "
            f"{', '.join([MASKED, *views])}. Set "
            f"objective.views.{missing[0]}."
        )
    return views


def finished_mask(image_mask: Any, policy: Any) -> Any:
    """The mask; one that asks the policy's own vision tower is handed it."""
    if isinstance(image_mask, partial):
        return image_mask(saliency=VisionTowerSaliency(policy))
    return image_mask


def require_room_for_checkpoints(plan: Plan, policy: Any, folder: RunFolder) -> None:
    """Raises ValueError where the disk would be full before the run has its last checkpoint."""
    size = checkpoint_bytes(policy, plan.make_optimizer)
    for callback in plan.callbacks:
        if isinstance(callback, RolloutCheckpoint):
            callback.require_room(folder.checkpoint_folder, size)


def reference_of(plan: Plan, policy: Any, sharding: Sharding | NoSharding) -> Any:
    """The reference policy, in the precision that passes read it in; shards are cast where they are cut."""
    if not plan.objective.needs.reference:
        return None
    halves = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    half = halves.get(str(plan.config.trainer.precision))
    return ReferenceModule(policy, half=None if sharding.passes_are_collective else half)


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
    num_prompts = min(PROMPTS_FOR_ESTIMATE, plan.settings.prompts_per_rollout)
    prompt_tokens, patches = longest_prompt(
        collector.policy.encode(collector.prompts.take(0, num_prompts))
    )
    return run_memory(
        plan.config,
        plan.settings,
        model=collector.policy.model,
        checkpointing=collector.policy.gradient_checkpointing,
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


def usable_problems(plan: Plan, policy: Any, folder: RunFolder, ranks: Ranks) -> Any:
    """Returns the problems that can be trained on; prints what was left out and why.

    Raises:
        ValueError: they are not those that the run began with, too few, or not the same on all ranks.
    """
    if not hasattr(plan.source, "usable"):
        return plan.source

    def positions() -> list[int]:
        """Looks at every problem, once for all ranks."""
        fingerprint = DataFingerprint()
        source, report = plan.source.usable(fingerprint.noting(policy.encoder.prompt_length))
        say(report.summary())
        require_enough(source, plan.settings)
        if plan.objective.needs.views:
            require_pictures(report.with_pictures, plan.source, remedy=WITHOUT_MASKED_VIEW)
        if note := folder.compare_problems(fingerprint):
            say(note)
        return list(source.positions)

    usable = FilteredProblems(plan.source, ranks.first(positions))
    if ranks.size > 1:
        sample = DataFingerprint()
        for index in range(0, len(usable), -(-len(usable) // PROBLEMS_COMPARED)):
            sample.note(usable[index])
        ranks.require_equal(
            {f"problem {number}": tuple(one) for number, one in enumerate(sample.problems)},
            remedy="They read data.path of their own machines: give all the same files.",
        )
    return usable


def require_enough(source: Any, settings: TrainingSettings) -> None:
    """Raises ValueError where there are fewer problems than one rollout needs."""
    if len(source) < settings.prompts_per_rollout:
        raise ValueError(
            f"a rollout shows each problem once; got {len(source)} usable problems for "
            f"training.prompts_per_rollout={settings.prompts_per_rollout}. Lower it, or add data."
        )


def require_room(source: PerceptionLabProblems, max_response_tokens: int) -> None:
    """Raises ValueError where every response of this world would be cut off before its answer."""
    if max_response_tokens < (needed := shortest_response(source.shape)):
        raise ValueError(
            f"responses to data.shape={source.shape.name} have at least {needed} tokens; got "
            f"rollout.max_response_tokens={max_response_tokens}. Raise it, or choose another data.shape."
        )


def is_lab(plan: Plan) -> bool:
    """Whether the run trains on PerceptionLab, whose held-out sets it can be evaluated on."""
    return isinstance(plan.source, PerceptionLabProblems)


def evaluate(plan: Plan, policy: Any, engine: Any, ranks: Ranks) -> LabReport:
    """Accuracy and error shares on the lab's two held-out sets, at the training temperature."""
    sets = held_out_sets(
        zipf_exponent=plan.source.zipf_exponent,
        difficulty=plan.source.difficulty,
        size=plan.config.evaluation.num_problems,
        shape=plan.source.shape.name,
    )
    return evaluate_lab(policy, engine, sets, **plan.config.evaluation, ranks=ranks)


def show_end(folder: RunFolder) -> float:
    """Says what came of the run and where it is; returns the reward of the last rollout."""
    metrics = folder.final_metrics()
    console.print(
        f"{metrics['rollout_step']:.0f} rollouts, {metrics['update_step']:.0f} updates; reward of the "
        f"last rollout {metrics['reward/mean']:.3f}. Everything is in {folder.path}",
        highlight=False,
        soft_wrap=True,
    )
    return metrics["reward/mean"]


def say(text: str) -> None:
    """Prints a sentence as it is: names of files may look like markup."""
    console.print(text, highlight=False, soft_wrap=True, markup=False)


if __name__ == "__main__":
    # The workers of joblib and submitit import the task; in __main__ they could not find it.
    from train import main as importable_main

    sys.exit(front_door.command(importable_main, on_ranks=True))
