"""Whole training steps, run by train.py's own parts: memory, scoring and updating, sampling, shards."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import torch
import torch.distributed as dist

from benchmarks.gpu.passes import measured_peak
from benchmarks.gpu.setting import GIB, Setting, TimedStep
from benchmarks.gpu.worker import Answer
from benchmarks.measure import REPOSITORY
from benchmarks.step_model import FORWARD_AND_BACKWARD, NUM_PROMPTS
from papo.commands.training.plan import Plan
from papo.commands.training.preflight import memory_of
from papo.models.flops import ScoringShape, shared_flops
from papo.parallel import Ranks, Sharding, full_tensor
from papo.training import TrainingModule


def fits(setting: Setting) -> Iterator[Answer]:
    """Peak of a step whose responses are all at the limit, against the estimate that the run prints."""
    plan = setting.plan(prompts=2)
    estimate = {}

    def ask(module: TrainingModule) -> None:
        estimate.update(_estimated(plan, module))

    steps = setting.steps(plan, setting.written(setting.sizes.limit), before=ask)
    yield {"what": "estimate", **estimate}
    yield {
        "what": "a step",
        "peak_gib": steps[-1].peak_gib,
        "peak_over_estimate": None
        if steps[-1].peak_gib is None
        else steps[-1].peak_gib / estimate["peak_gib"],
    }


def _estimated(plan: Plan, module: TrainingModule) -> dict[str, float]:
    found = memory_of(plan, module.collector, module.collector.policy.device).estimate()
    sizes = {name: size for name, size in asdict(found).items() if size and name != "offloads"}
    return {
        "peak_gib": found.peak / GIB,
        **{f"{name}_gib": size / GIB for name, size in sizes.items()},
    }


def update(setting: Setting) -> Iterator[Answer]:
    """Scoring and the update of prompts whose responses have the published mean, without sampling."""
    plan = setting.plan(prompts=setting.sizes.prompts[0])
    step = setting.steps(plan, setting.written())[-1]
    yield _told(setting, plan, step)


def sampled_step(*overrides: str) -> Callable[[Setting], Iterator[Answer]]:
    """A cell: whole steps with short responses that the run's own engine samples.

    Args:
        overrides: settings of the experiment that are others.
    """

    def cell(setting: Setting) -> Iterator[Answer]:
        short = f"rollout.max_response_tokens={setting.sizes.sampled_tokens}"
        plan = setting.plan(short, *overrides, prompts=setting.sizes.prompts[1])
        engine = plan.make_engine(policy=setting.policy)
        estimate = {}

        def ask(module: TrainingModule) -> None:
            estimate.update(_estimated(plan, module))

        step = setting.steps(plan, engine, before=ask)[-1]
        yield {
            **_told(setting, plan, step),
            "overrides": list(overrides),
            "estimate_gib": estimate["peak_gib"],
            "sampled_tokens_per_second": step.response_tokens / step.seconds["rollout"],
        }

    return cell


def _told(setting: Setting, plan: Plan, step: TimedStep) -> Answer:
    """Times of a step, what they would be for as many prompts as published, and useful MFU.

    A score counts as one forward pass for the reference and one for the masked view; what an update scores
    with gradient is as the objective says.
    """
    flops = shared_flops(setting.policy.model.config, ScoringShape.of(step.groups, step.mask)).total
    needs = plan.objective.needs
    scored = int(needs.reference) + len(needs.old_views)
    trained = FORWARD_AND_BACKWARD * (1 + len(needs.live_views))
    peak, factor = measured_peak(setting), NUM_PROMPTS / len(step.groups)
    return {
        "prompts": len(step.groups),
        "responses": step.mask.shape[0],
        "mean_tokens": step.response_tokens / step.mask.shape[0],
        **{f"{phase}_s": seconds for phase, seconds in step.seconds.items()},
        "score_mfu": scored * flops / step.seconds["score"] / peak,
        "update_mfu": trained * flops / step.seconds["update"] / peak,
        "trained_tokens_per_second": step.response_tokens / step.seconds["update"],
        "score_s_of_384_prompts": factor * step.seconds["score"],
        # An optimiser's step is scaled along, as if there were one for as few prompts as here.
        "update_s_of_384_prompts": factor * step.seconds["update"],
        "peak_gib": step.peak_gib,
    }


def papo_over_grpo(setting: Setting) -> Iterator[Answer]:
    """What PAPO adds to GRPO in all but sampling, on the same responses."""
    seconds = {}
    for name, overrides in (("papo", ()), ("grpo", ("objective=grpo",))):
        plan = setting.plan(*overrides, prompts=setting.sizes.prompts[2])
        step = setting.steps(plan, setting.written())[-1]
        seconds[name] = step.seconds["score"] + step.seconds["update"]
        yield {
            "objective": name,
            "prompts": len(step.groups),
            **{f"{phase}_s": value for phase, value in step.seconds.items()},
        }
        setting.tidy()
    yield {"what": "PAPO / GRPO without sampling", "ratio": seconds["papo"] / seconds["grpo"]}


def shards(setting: Setting) -> Iterator[Answer]:
    """FSDP2 with a world of one beside the whole policy: time, peak, and how far the weights end apart."""
    plan = setting.plan(prompts=2 if setting.is_toy else 4)
    before = {name: p.detach().clone() for name, p in setting.policy.named_parameters()}
    whole = setting.steps(plan, setting.written())[-1]
    yield _of_strategy("whole", whole)
    after = {name: p.detach().clone() for name, p in setting.policy.named_parameters()}
    with torch.no_grad():
        for name, parameter in setting.policy.named_parameters():
            parameter.copy_(before[name])
    setting.tidy()
    with _world_of_one():
        sharding = Sharding(
            ranks=Ranks(),
            shard_size=None,
            device_type=setting.device.type,
            half_precision="16" in str(plan.config.trainer.precision),
        )
        try:
            sharded = setting.steps(plan, setting.written(), sharding=sharding)[-1]
            yield _of_strategy("shards", sharded)
            yield _apart(setting, before, after)
        finally:
            # It is in shards of a group of processes that is gone.
            setting.forget_policy()


def _of_strategy(name: str, step: TimedStep) -> Answer:
    return {
        "weights": name,
        **{f"{phase}_s": seconds for phase, seconds in step.seconds.items()},
        "peak_gib": step.peak_gib,
    }


def _apart(
    setting: Setting, before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]
) -> Answer:
    equal, count, difference, movement = 0, 0, 0.0, 0.0
    for name, parameter in setting.policy.named_parameters():
        here = full_tensor(parameter.detach())
        equal += int((here == after[name]).sum())
        count += here.numel()
        difference += float((here - after[name]).double().square().sum())
        movement += float((after[name] - before[name]).double().square().sum())
    return {
        "what": "weights after the steps, shards against whole",
        "share_equal_to_the_bit": equal / count,
        "distance_over_movement": (difference / movement) ** 0.5 if movement else None,
    }


@contextmanager
def _world_of_one() -> Iterator[None]:
    """Collectives of one process with itself."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def gpu_tests(setting: Setting) -> Iterator[Answer]:
    """The tests that need a device."""
    files = sorted((REPOSITORY / "tests").rglob("test_*.py"))
    marked = [str(file) for file in files if "mark.gpu" in file.read_text("utf-8")]
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *marked],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    said = (finished.stdout.strip() or finished.stderr.strip() or "nothing").splitlines()
    if finished.returncode:
        raise RuntimeError(said[-1])
    yield {"pytest": said[-1]}
