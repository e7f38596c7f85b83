"""The run itself: what a plan still lacks is built around the model, trained, and told of."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from lightning.pytorch import seed_everything

from papo.commands import resolvers
from papo.commands.building import instantiate
from papo.commands.constructors import plain
from papo.commands.on_ranks import weight_source
from papo.commands.training.ending import console, outcome, say, show_end, write_page
from papo.commands.training.held_out import evaluate_now
from papo.commands.training.plan import Plan, require_enough
from papo.commands.training.preflight import (
    WITHOUT_MASKED_VIEW,
    make_sharding,
    make_trainer,
    require_room_for_checkpoints,
    room_of,
)
from papo.data import FilteredProblems, Reading, Remembered
from papo.evaluation.progress import show_progress
from papo.masking import require_pictures
from papo.models import VisionTowerSaliency
from papo.parallel import NoSharding, Ranks, Sharding
from papo.storage.files import user_cache
from papo.training import (
    Collector,
    DataFingerprint,
    NoOffload,
    Offload,
    PolicyModule,
    ProblemHashes,
    PromptStream,
    ReferenceModule,
    RunFolder,
    Start,
    TrainingModule,
    check_updates_arrive,
    fit,
    read_best,
)
from papo.views import MASKED, MaskedView

transformers.logging.disable_progress_bar()

# Threads per GPU that decode and cut the pictures of prompts.
PROMPT_WORKERS = 4


# Problems that are read on all ranks to see that they have the same data.
PROBLEMS_COMPARED = 16


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
        logger.log_hyperparams(plain(config))
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
        say(lost, outcome)
    for note in ranks.first(lambda: folder.go_on(start)):
        say(note)
    reports: dict[str, Any] = {}

    def evaluate(moment: str) -> None:
        if plan.evaluations is not None:
            found = evaluate_now(
                plan.evaluations, module, trainer, device=device, loggers=loggers, say=say
            )
            reports[moment] = found["sets"]

    evaluate("before")
    ended_early = fit(trainer, module, folder.checkpoint)
    if ended_early:
        say(ended_early)
    evaluate("after")
    # Of the jobs of a multirun there is one table, at its end.
    if plan.evaluations is not None and resolvers.multirun_name() is None:
        console.print(plan.evaluations.held_out.table(reports))
    if ranks.writes:
        best = read_best(folder.path)
        folder.write_result(
            "finished",
            metrics=folder.last_metrics(),
            evaluation=reports,
            **({} if best is None else {"best": asdict(best)}),
            **({"ended_early": ended_early} if ended_early else {}),
        )
        write_page(folder)
    ranks.wait_for_all()
    return show_end(folder)


def initial_policy(plan: Plan, sharding: Sharding | NoSharding) -> Any:
    """The policy; where ranks share its weights, those in files stay there until each reads its part."""
    model = plan.config.model
    stays = sharding.passes_are_collective and "hub_id" in model
    leaves: dict[str, Any] = {"leave_in_files": True} if stays else {}
    policy = instantiate(model, **leaves)
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
        policy_module=PolicyModule(
            policy=policy,
            make_optimizer=plan.make_optimizer,
            weight_decay_of=plan.weight_decay_of,
            schedule=plan.schedule,
        ),
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


def finished_mask(image_mask: Any, policy: Any) -> Any:
    """The mask; one that asks the policy's own vision tower is handed it."""
    if isinstance(image_mask, partial):
        return image_mask(saliency=VisionTowerSaliency(policy))
    return image_mask


def reference_of(plan: Plan, policy: Any, sharding: Sharding | NoSharding) -> Any:
    """The reference policy, in the precision that passes read it in; shards are cast where they are cut."""
    if not plan.objective.needs.reference:
        return None
    halves = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    half = halves.get(str(plan.config.trainer.precision))
    return ReferenceModule(policy, half=None if sharding.passes_are_collective else half)


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
        reading = Reading(
            remembered=Remembered(
                folder=user_cache() / "usable",
                prompts=policy.encoder.identity(),
                noted=fingerprint.problems,
                as_noted=lambda one: ProblemHashes(*one),
            ),
            progress=lambda total: show_progress(console, total=total, done=0),
        )
        source, report = plan.source.usable(
            fingerprint.noting(policy.encoder.prompt_length), reading
        )
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
