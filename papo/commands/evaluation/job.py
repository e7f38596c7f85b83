"""One evaluation from its configuration to its end: checked, opened, continued or begun, and recorded."""

import statistics
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import transformers
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from papo.commands import front_door, policy_source
from papo.commands.benchmarks import check_model_of, require_problems
from papo.commands.constructors import allow_packages, plain
from papo.commands.evaluation.plan import Plan, make_plan
from papo.commands.on_ranks import (
    end_recorded,
    launch_ranks,
    locked_on_ranks,
    opened_on_ranks,
    require_same_start,
    weight_source,
)
from papo.commands.policy_source import check_policy
from papo.data import CheckedProblems, notes_on
from papo.evaluation import Benchmark
from papo.evaluation.progress import duration, show_progress
from papo.evaluation.run.folder import EvaluationFolder
from papo.evaluation.run.report import notes, terminal_table
from papo.evaluation.run.runner import Runner
from papo.evaluation.run.summary import summarize
from papo.evaluation.scored_folder import run_scoring
from papo.evaluation.scores import score_responses
from papo.evaluation.vision.dependency import measure_vision_dependency
from papo.evaluation.vision.report import write_vision_dependency
from papo.masking import check_mask
from papo.parallel import Ranks, check_processes, device_of_process
from papo.rollout import preflight_engine
from papo.storage.responses import ResponseStore, problem_identities, read_responses
from papo.training.base_weights import fingerprint

# Without a terminal rich assumes 80 columns; the table at the end needs more.
console = Console(width=None if sys.stdout.isatty() else 140)

transformers.logging.disable_progress_bar()


def evaluate(config: DictConfig, ranks: Ranks) -> float:
    """One evaluation, or one rank of it. Returns the mean accuracy over benchmarks in the first view, for sweepers."""
    console.quiet = not ranks.writes
    # Of the command line: what a folder's configuration says of it is not read.
    allow_packages(plain(config, resolve=False).get("allow"))
    run_dir = front_door.run_dir()
    OmegaConf.update(config, "run_dir", str(run_dir))
    plan = make_plan(config)
    num_processes = check_processes(
        devices=config.devices,
        num_nodes=config.num_nodes,
        section="",
        group=None,
        script="evaluate.py",
        ranks=ranks,
    )
    device = device_of_process(
        config.device, devices=config.devices, ranks=ranks, key="device", section=""
    )
    plan = replace(plan, device=device)
    # What rank 0 downloads, the others find.
    about_data = ranks.first(lambda: preflight(plan))
    if not ranks.writes:
        preflight(plan)
    folder = EvaluationFolder(
        run_dir,
        config=plain(config),
        config_text=OmegaConf.to_yaml(config, resolve=True),
        overrides=list(HydraConfig.get().overrides.task),
        checkpoint={"given": config.checkpoint, "location": plan.source.location},
        benchmarks={benchmark.key: benchmark.facts() for benchmark in plan.benchmarks},
        resume=config.resume,
    )
    # Before anything is opened for writing: what is finished stays as it is.
    if ranks.first(folder.is_done):
        return ranks.first(lambda: show_end(folder))
    require_same_start(
        ranks,
        folder.config,
        folder.overrides,
        checkpoint=plan.source.location,
        benchmarks=folder.benchmarks,
    )
    if num_processes > ranks.size:
        launch_ranks("evaluate", num_processes=num_processes, run_dir=run_dir)
        return mean_accuracy(folder.summary())
    with locked_on_ranks(run_dir, ranks):
        # Another process may have finished it meanwhile.
        if ranks.first(folder.is_done):
            return ranks.first(lambda: show_end(folder))
        for note in (opened_on_ranks(run_dir, ranks, folder.open), *about_data):
            if note:
                console.print(note, highlight=False, soft_wrap=True, markup=False)
        with end_recorded(ranks, folder.write_result):
            return run(plan, folder, ranks)


def preflight(plan: Plan) -> list[str]:
    """Says what is missing, checkpoint and data sets, before a model is loaded.

    Returns what must be known of how the data are read.

    Raises:
        ValueError, FileNotFoundError, MemoryError: with the override that helps.
    """
    check_policy(plan.source, plan.device)
    preflight_engine(plan.make_engine)
    for benchmark in plan.benchmarks:
        benchmark.preflight()
        check_model_of(benchmark.problems, plan.config.model.get("path"), None)
    about_data: list[str] = []
    audited = () if plan.audit is None else tuple(plan.audit.views.values())
    for benchmark in plan.benchmarks:
        require_problems(benchmark)
        about_data += [f"{benchmark.label}: {note}" for note in notes_on(benchmark.problems)]
        parts: list[tuple[Any, str]] = [
            *((view, "audit=none" if view in audited else "views=image") for view in plan.views),
            (plan.probe, "probe=none"),
        ]
        for part, remedy in parts:
            if hasattr(part, "mask"):
                check_mask(part.mask, benchmark.problems, remedy=remedy)
    return about_data


def run(plan: Plan, folder: EvaluationFolder, ranks: Ranks) -> float:
    """Loads the policy, does what is not done yet, and writes the tables."""
    config = plan.config
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    store = None
    if ranks.writes:
        store = ResponseStore(folder.path, picture_side=plan.settings.picture_side)
        if store.cut is not None:
            console.print(str(store.cut), highlight=False, soft_wrap=True, markup=False)
    policy = load_policy(plan, folder, ranks)
    plan = replace(plan, benchmarks=checked_benchmarks(plan.benchmarks, policy))
    engine = plan.make_engine(policy=policy)
    engine.follow(
        weight_source(policy, folder.path, ranks),
        "0",
    )
    runner = Runner(
        ranks=ranks,
        policy=policy,
        engine=engine,
        views=plan.views,
        store=store,
        num_responses=plan.num_responses,
        max_response_tokens=config.rollout.max_response_tokens,
        tokens_per_batch=plan.settings.tokens_per_batch,
        seed=plan.seed,
    )
    total = len(plan.views) * sum(len(benchmark.problems) for benchmark in plan.benchmarks)
    done = sum(batch.num_problems for batch in store.batches) if store else 0
    if done:
        console.print(f"continuing: {done} of {total} problems are done", highlight=False)
    with show_progress(console, total=total, done=done) as advance:
        runner.run(plan.benchmarks, advance)
    if store:
        write_summary(plan, policy, folder, store)
    look_closer(plan, policy, folder, ranks)
    if store:
        folder.write_result(
            "finished",
            num_responses=sum(batch.num_responses for batch in store.batches),
            num_tokens=sum(batch.num_tokens for batch in store.batches),
            sample_seconds=round(sum(batch.sample_seconds for batch in store.batches), 3),
            grade_seconds=round(sum(batch.grade_seconds for batch in store.batches), 3),
        )
    return ranks.first(lambda: show_end(folder))


def load_policy(plan: Plan, folder: EvaluationFolder, ranks: Ranks) -> Any:
    """Returns the policy on its device.

    Raises:
        ValueError: its weights are not those that the evaluation began with, or not the same on all ranks.
    """
    policy = policy_source.load_policy(plan.source)
    weights = fingerprint(dict(policy.named_parameters()))
    ranks.require_equal(
        {"weights": weights}, remedy="Give all machines the same checkpoint= and model.path=."
    )
    ranks.first(lambda: folder.require_same_weights(weights))
    if plan.dtype is not None:
        for parameter in policy.parameters():
            # Not Module.to: the frequencies of the positions are buffers and stay exact.
            parameter.data = parameter.data.to(plan.dtype)
    return policy.to(plan.device)


def write_summary(plan: Plan, policy: Any, folder: EvaluationFolder, store: ResponseStore) -> None:
    """Writes the tables of the responses.

    Raises:
        ValueError: there is no response.
    """
    scores = score_responses(
        read_responses(folder.path),
        pass_at=plan.settings.pass_at,
        bootstrap_seed=plan.settings.bootstrap_seed,
    )
    if not scores:
        raise ValueError(
            f"none of the {sum(batch.num_problems for batch in store.batches)} problems could be shown, so "
            "there is nothing to score: each is named above with its reason. Mend the data "
            "(benchmark.path=), or choose other views="
        )
    config, limits = plan.config, policy.encoder.family_pictures.limits
    folder.write_summary(
        summarize(
            scores,
            benchmarks=plan.benchmarks,
            batches=store.batches,
            settings=plan.settings,
            protocol={
                "num_responses": plan.num_responses,
                **{
                    key: config.rollout[key]
                    for key in ("temperature", "top_p", "top_k", "max_response_tokens")
                },
                "min_pixels": limits[0],
                "max_pixels": limits[1],
                "limit": config.benchmark.get("limit"),
                "grader": config.benchmark.get("grader"),
                "seed": plan.seed,
            },
            checkpoint=folder.run()["checkpoint"],
            identities=problem_identities(folder.path),
        )
    )


def checked_benchmarks(benchmarks: tuple[Benchmark, ...], policy: Any) -> tuple[Benchmark, ...]:
    """The benchmarks; a problem of which the policy's prompt cannot be made counts as not readable."""
    return tuple(
        replace(
            benchmark,
            problems=CheckedProblems(
                benchmark.problems, prompt_length=policy.encoder.prompt_length
            ),
        )
        for benchmark in benchmarks
    )


def look_closer(plan: Plan, policy: Any, folder: EvaluationFolder, ranks: Ranks) -> None:
    """Writes what the image is worth, where several views were run, which words depend on it, and the audit."""
    bootstrap_seed = plan.settings.bootstrap_seed
    several_views = len(plan.views) > 1 and "image" in (view.name for view in plan.views)
    if several_views and ranks.writes:
        write_vision_dependency(
            measure_vision_dependency(read_responses(folder.path), bootstrap_seed=bootstrap_seed),
            folder.path,
        )
    for scoring in (plan.probe, plan.audit):
        if scoring is not None:
            run_scoring(
                scoring,
                policy=policy,
                benchmarks=plan.benchmarks,
                folder=folder.path,
                bootstrap_seed=bootstrap_seed,
                progress=lambda total, done: show_progress(console, total=total, done=done),
                ranks=ranks,
            )


def show_end(folder: EvaluationFolder) -> float:
    """Prints the table and where everything is; returns the mean accuracy of the first view."""
    summary, result = folder.summary(), folder.result()
    console.print(terminal_table(summary))
    for note in notes(summary):
        console.print(f"  {note}", highlight=False, soft_wrap=True, markup=False)
    console.print(
        f"{result['num_responses']} responses, {result['num_tokens']} tokens, sampled in "
        f"{duration(result['sample_seconds'])}, graded in {duration(result['grade_seconds'])}. "
        f"Everything is in {folder.path}",
        highlight=False,
        soft_wrap=True,
    )
    for name in ("vision_dependency.md", "perception_kl.md", "grounding.html"):
        if (folder.path / name).exists():
            console.print(f"  see {folder.path / name}", highlight=False, soft_wrap=True)
    return mean_accuracy(summary)


def mean_accuracy(summary: Mapping[str, Any]) -> float:
    """Returns the mean over benchmarks in the first view."""
    first = summary["sets"][0]["view"]
    return statistics.fmean(
        one["accuracy"]["value"] for one in summary["sets"] if one["view"] == first
    )
