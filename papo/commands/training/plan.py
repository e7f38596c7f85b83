"""Everything of a run that exists before a model is loaded: built from the configuration, and checked."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from omegaconf import DictConfig

from papo.commands import building
from papo.commands.benchmarks import check_model_of
from papo.commands.building import instantiate, instantiate_each, make_objective
from papo.commands.constructor_arguments import refusals_named
from papo.commands.constructors import plain
from papo.commands.training.held_out import evaluation_callbacks, make_held_out
from papo.objective import ClippedSurrogate, Objective, ViewKL
from papo.rewards import PartlyLabelled
from papo.rollout import (
    check_ahead,
    check_greedy,
    check_importance_cap,
    check_samples_views,
    check_sampling,
)
from papo.training import (
    HeldOutEvaluations,
    LearningRateSchedule,
    TrainingSettings,
    ValidationSettings,
    check_group_size,
    check_sampled_from,
    check_seed,
    check_threads,
    check_trainer_keys,
    check_weight_decay_of,
    held_out_settings,
    training_settings,
    try_optimizer,
    validation_settings,
)
from papo.types import IMAGE
from papo.views import MASKED, View

KNOWN_KEYS = (
    *("model", "data", "reward", "fidelity", "masking", "rollout", "objective", "optimizer"),
    *(
        "trainer",
        "logger",
        "callbacks",
        "safeguard",
        "training",
        "evaluation",
        "benchmark",
        "validation",
        "schedule",
        "seed",
        "num_threads",
        "run_dir",
        "resume",
        "sweep",
        "allow",
    ),
)


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
    weight_decay_of: str
    learning_rate: float
    schedule: LearningRateSchedule
    evaluations: HeldOutEvaluations | None
    validation: ValidationSettings
    make_trainer: Callable[..., Trainer]
    callbacks: list[Callback]
    recomputes: bool = False
    """Activations; decided by `preflight` where `model.gradient_checkpointing` is `auto`."""


def make_plan(config: DictConfig) -> Plan:
    """Checks every setting and builds what needs no model.

    Raises:
        ValueError: an impossible setting, with its key.
    """
    building.check_known_keys(config, KNOWN_KEYS)
    settings = training_settings(plain(config.training))
    check_threads(config.num_threads)
    check_trainer_keys(config.trainer)
    check_built_later(config)
    make_optimizer = instantiate(config.optimizer, without=("weight_decay_of",))
    with refusals_named(config.optimizer, "optimizer"):
        [group] = try_optimizer(make_optimizer).param_groups
    if group.get("lr") is None:
        raise ValueError("the learning rate is part of a run's metrics; set optimizer.lr")
    schedule = instantiate(config.schedule)
    schedule.check_length(settings.num_rollouts * settings.updates_per_rollout)
    objective = make_objective(config)
    make_engine = instantiate(config.rollout, without=("num_responses", "ahead"))
    num_responses = check_group_size(config.rollout.num_responses)
    views = make_views(config, objective)
    source = instantiate(config.data)
    evaluations = make_evaluations(config, source, make_engine)
    validation = validation_settings(plain(config.validation))
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
        source=source,
        make_engine=make_engine,
        ahead=check_ahead(config.rollout.get("ahead", 0), make_engine),
        make_optimizer=make_optimizer,
        weight_decay_of=check_weight_decay_of(
            config.optimizer.get("weight_decay_of", "all"), group
        ),
        learning_rate=float(group["lr"]),
        schedule=schedule,
        evaluations=evaluations,
        validation=validation,
        make_trainer=instantiate(
            config.trainer, without=("strategy", "shard_size", "offload_while_sampling")
        ),
        callbacks=[
            *evaluation_callbacks(evaluations, validation),
            *(instantiate(node) for node in config.callbacks.values()),
            *([instantiate(config.safeguard)] if config.safeguard else []),
        ],
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
    # Others say how many of theirs are usable once they are read.
    if not hasattr(source, "usable"):
        require_enough(source, settings)
    check_model_of(source, None, config.rollout.max_response_tokens)
    return plan


def make_evaluations(
    config: DictConfig, source: Any, make_engine: Callable[..., Any]
) -> HeldOutEvaluations | None:
    """Returns the evaluations on held-out problems; None where there are none.

    Raises:
        ValueError: an impossible setting, with its key.
    """
    settings = held_out_settings(plain(config.evaluation))
    held_out = make_held_out(config, source, settings)
    if held_out is None:
        return None
    if settings.greedy:
        check_greedy(make_engine)
    return HeldOutEvaluations(held_out, greedy=settings.greedy, folder=Path(config.run_dir))


def check_built_later(config: DictConfig) -> None:
    """Checks the arguments of what is built once the run has begun: the model and the loggers."""
    building.check_node(config.model)
    for node in config.logger.values():
        building.check_node(node)
        if "mode" in node:
            building.check_wandb(node.mode, key=f"{building.key_of(node)}.mode")


def importance_cap_of(objective: Objective) -> float | None:
    """The cap of the correction for the engine; None where no term corrects."""
    surrogates = [term for term in objective.terms.values() if isinstance(term, ClippedSurrogate)]
    return next((cap for term in surrogates if (cap := term.importance_cap) is not None), None)


def check_credits(plan: Plan) -> None:
    """Raises ValueError where groups or rewards are not such as the credits need."""
    from_image = plan.num_responses - sum(plan.sampled_from.values())
    sampled = {IMAGE: from_image, **dict(sorted(plan.sampled_from.items()))}
    for name, credit in plan.objective.credits.items():
        with building.settings_named(plan.config.objective.credits[name]):
            credit.check_group(sampled)
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


def require_enough(source: Any, settings: TrainingSettings) -> None:
    """Raises ValueError where there are fewer problems than one rollout needs."""
    if len(source) < settings.prompts_per_rollout:
        raise ValueError(
            f"a rollout shows each problem once; got {len(source)} problems for "
            f"training.prompts_per_rollout={settings.prompts_per_rollout}. Lower it, or add data."
        )
