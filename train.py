"""Trains a policy with PAPO: `python train.py`, `python train.py +experiment=papo_geo3k`, ...

Composes conf/train.yaml, checks every setting before anything is loaded, builds the parts, trains,
and ends with a table. The algorithm is papo/training/collect.py and papo/training/papo.py.
"""

import sys
from typing import Any

import hydra
import transformers
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch import seed_everything
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

import front_door
from front_door import instantiate
from papo.lab import LabReport, PerceptionLabProblems, compare_reports, evaluate_lab, held_out_sets
from papo.models import check_model
from papo.training import (
    Collector,
    PAPOModule,
    PolicyModule,
    PromptStream,
    ReferenceModule,
    RunFolder,
    TrainingSettings,
    build_trainer,
    check_group_size,
    check_seed,
    finish_loggers,
    fit,
    training_settings,
)

KNOWN_KEYS = (
    *("model", "data", "reward", "fidelity", "masking", "rollout", "objective", "optimizer"),
    *("trainer", "logger", "callbacks", "training", "evaluation", "seed", "run_dir", "resume"),
)

# Without a terminal rich assumes 80 columns; the table at the end needs more.
console = Console(width=None if sys.stdout.isatty() else 120)
transformers.logging.disable_progress_bar()


@hydra.main(config_path=front_door.CONFIG_FOLDER, config_name="train", version_base="1.3")
@front_door.clear_errors
def main(config: DictConfig) -> float | None:
    """One run. Returns the mean reward of the last rollout, for sweepers."""
    run_dir = front_door.run_dir()
    OmegaConf.update(config, "run_dir", str(run_dir))
    front_door.check_known_keys(config, KNOWN_KEYS)
    plain = OmegaConf.to_container(config, resolve=True)
    settings = training_settings(plain["training"])
    check_group_size(config.rollout.num_responses)
    check_seed(config.seed)
    objective = instantiate(config.objective)
    preflight(config, with_reference=objective.needs_reference)
    folder = RunFolder(
        run_dir,
        config=plain,
        config_text=OmegaConf.to_yaml(config, resolve=True),
        overrides=list(HydraConfig.get().overrides.task),
        resume=config.resume,
    )
    if folder.is_finished():
        show_end(folder, folder.last_metrics())
        return folder.last_metrics()["reward/mean"]
    loggers: list[Any] = []
    try:
        return run(config, settings, objective, folder, loggers)
    except BaseException as error:
        folder.write_result(
            "failed" if isinstance(error, Exception) else "interrupted",
            error=f"{type(error).__name__}: {error}",
        )
        raise
    finally:
        finish_loggers(loggers)


def preflight(config: DictConfig, *, with_reference: bool) -> None:
    """Says within seconds what is missing, before a model is loaded or a data set downloaded.

    Raises:
        ValueError, FileNotFoundError, MemoryError: with the override that helps.
    """
    source = instantiate(config.data)
    if hasattr(source, "preflight"):
        source.preflight()
    if "hub_id" in config.model:
        location = {key: config.model[key] for key in ("path", "hub_id", "revision")}
        check_model(
            **location,
            with_reference=with_reference,
            trust_remote_code=config.model.trust_remote_code,
        )


def run(
    config: DictConfig,
    settings: TrainingSettings,
    objective: Any,
    folder: RunFolder,
    loggers: list[Any],
) -> float:
    """Builds the parts, trains, evaluates and writes result.json."""
    seed, num_responses = config.seed, config.rollout.num_responses
    seed_everything(seed, verbose=False)
    loggers.extend(instantiate(node) for node in config.logger.values())
    for logger in loggers:
        logger.log_hyperparams(OmegaConf.to_container(config, resolve=True))
    trainer = build_trainer(
        instantiate(config.trainer),
        folder=folder.path,
        callbacks=[instantiate(node) for node in config.callbacks.values()],
        loggers=loggers,
    )
    policy = instantiate(config.model)
    source = load_problems(config, policy, settings)
    engine = instantiate(config.rollout, without=("num_responses",))(policy=policy)
    reward = instantiate(config.reward)
    module = PAPOModule(
        policy_module=PolicyModule(policy=policy, make_optimizer=instantiate(config.optimizer)),
        collector=Collector(
            policy=policy,
            # A copy of the initial policy: made before a checkpoint is restored.
            reference=ReferenceModule(policy) if objective.needs_reference else None,
            image_mask=instantiate(config.masking),
            engine=engine,
            reward=reward,
            prompts=PromptStream(source=source, seed=seed),
            settings=settings,
            num_responses=num_responses,
            needs_masked_view=objective.needs_masked_view or objective.needs_old_masked_logprobs,
            needs_old_masked_logprobs=objective.needs_old_masked_logprobs,
            seed=seed,
        ),
        objective=objective,
        failure_folder=folder.path / "non_finite",
    )
    reports = {}
    if isinstance(source, PerceptionLabProblems):
        reports["before"] = evaluate(config, source, policy, engine)
    try:
        fit(trainer, module, folder.latest_checkpoint())
    finally:
        if hasattr(reward, "close"):
            reward.close()
    if isinstance(source, PerceptionLabProblems):
        reports["after"] = evaluate(config, source, policy, engine)
    return finish(folder, reports)


def load_problems(config: DictConfig, policy: Any, settings: TrainingSettings) -> Any:
    """Returns the usable training problems; prints what was left out and why.

    Raises:
        ValueError: there are fewer than one rollout needs.
    """
    source = instantiate(config.data)
    if hasattr(source, "usable"):
        source, report = source.usable(policy.encoder.prompt_length)
        console.print(report.summary(), highlight=False, soft_wrap=True)
    if len(source) < settings.prompts_per_rollout:
        raise ValueError(
            "a rollout shows each problem once; got "
            f"{len(source)} usable problems for training.prompts_per_rollout="
            f"{settings.prompts_per_rollout}. Lower it, or add data."
        )
    return source


def evaluate(
    config: DictConfig, source: PerceptionLabProblems, policy: Any, engine: Any
) -> LabReport:
    """Accuracy and error shares on the lab's two held-out sets, at the training temperature."""
    sets = held_out_sets(
        zipf_exponent=source.zipf_exponent,
        difficulty=source.difficulty,
        size=config.evaluation.num_problems,
    )
    return evaluate_lab(policy, engine, sets, **config.evaluation)


def finish(folder: RunFolder, reports: dict[str, LabReport]) -> float:
    """Writes result.json, shows what came of the run and says where it is."""
    metrics = folder.last_metrics()
    evaluation = {moment: report.to_dict() for moment, report in reports.items()}
    folder.write_result("finished", metrics=metrics, evaluation=evaluation)
    if reports:
        console.print(compare_reports(reports))
    show_end(folder, metrics)
    return metrics["reward/mean"]


def show_end(folder: RunFolder, metrics: dict[str, float]) -> None:
    console.print(
        f"{metrics['rollout_step']:.0f} rollouts, {metrics['update_step']:.0f} updates; reward of the "
        f"last rollout {metrics['reward/mean']:.3f}. Everything is in {folder.path}",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
    sys.exit(front_door.exit_code())
