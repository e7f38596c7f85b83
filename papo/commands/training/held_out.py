"""What a run is evaluated on while and around its training: benchmarks, or what its data hold out themselves."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from omegaconf import DictConfig

from papo.commands.benchmarks import check_model_of, make_benchmarks, require_problems
from papo.evaluation.run.held_out import HeldOutBenchmarks
from papo.training import (
    EvaluateAtEnd,
    HeldOut,
    HeldOutEvaluations,
    HeldOutSettings,
    HoldsOut,
    TrainingModule,
    Validation,
    ValidationSettings,
    check_monitor,
    log_evaluation,
    validation_names,
)


def make_held_out(config: DictConfig, source: Any, settings: HeldOutSettings) -> HeldOut | None:
    """Returns the problems of `benchmark=`, else those that the data hold out; None where there are neither.

    Raises:
        ValueError: an impossible setting, with its key.
    """
    if config.benchmark.get("sets"):
        return HeldOutBenchmarks(
            benchmarks=make_benchmarks(config.benchmark),
            num_problems=settings.num_problems,
            num_responses=settings.num_responses,
            max_response_tokens=config.rollout.max_response_tokens,
            tokens_per_batch=settings.tokens_per_batch,
            seed=settings.seed,
        )
    if not isinstance(source, HoldsOut):
        return None
    if settings.num_problems is None:
        raise ValueError(
            "data that draw their problems have no last one; got evaluation.num_problems=null. Set it to a number."
        )
    return source.held_out(
        num_problems=settings.num_problems,
        num_responses=settings.num_responses,
        seed=settings.seed,
    )


def evaluation_callbacks(
    evaluations: HeldOutEvaluations | None, settings: ValidationSettings
) -> list[Callback]:
    """Returns what evaluates after training, and while it goes on where that is on.

    Raises:
        ValueError: there is nothing to validate on, or no such metric.
    """
    if evaluations is None:
        if settings.every_rollouts == 0:
            return []
        raise ValueError(
            f"validation.every_rollouts={settings.every_rollouts} asks for problems that the run does not train on, "
            "and data= holds none out. Choose benchmark=, e.g. benchmark=geometry3k, or benchmark=local with the "
            "split test of your own data."
        )
    check_monitor(settings, validation_names(evaluations.held_out.names))
    at_end = EvaluateAtEnd(evaluations=evaluations)
    if settings.every_rollouts == 0:
        return [at_end]
    return [Validation(evaluations=evaluations, settings=settings), at_end]


def preflight_held_out(held_out: HeldOut, model_path: str | None, max_response_tokens: int) -> None:
    """Says what is missing of the held-out problems before a model is loaded.

    Raises:
        ValueError, FileNotFoundError: with the override that helps.
    """
    if not isinstance(held_out, HeldOutBenchmarks):
        return
    for benchmark in held_out.benchmarks:
        benchmark.preflight()
        require_problems(benchmark)
        check_model_of(benchmark.problems, model_path, max_response_tokens)


def evaluate_now(
    evaluations: HeldOutEvaluations,
    module: TrainingModule,
    trainer: Trainer,
    *,
    device: torch.device,
    loggers: list[Any],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Returns what the policy is worth before or after training; all ranks call it.

    Args:
        evaluations: on held-out problems.
        module: of the run.
        trainer: of the run, which has not begun or is over: the weights may lie on the host.
        device: where the run computes.
        loggers: are told, unless a row of the run has it already.
        say: prints a line.
    """
    ranks = module.collector.ranks
    if (known := evaluations.recorded(module.rollout_step, ranks)) is not None:
        return known
    say("evaluating on held-out problems")
    if not module.collector.sharding.passes_are_collective:
        module.policy_module.to(device)
        # As Lightning will, or did: weights of half precision are evaluated as they are trained.
        trainer.precision_plugin.convert_module(module.policy_module)
    found = evaluations.now(module, trainer)
    log_evaluation(loggers, found["metrics"], module.rollout_step)
    return found
