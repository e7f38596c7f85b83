"""What the cells share: a published experiment, composed and built as train.py does, with random weights."""

import gc
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback
from lightning.pytorch.strategies import SingleDeviceStrategy
from omegaconf import DictConfig
from torch import Tensor

from benchmarks.gpu.random_policy import assembled, random_policy
from benchmarks.models import problems
from benchmarks.own_step import EverySecondOneIsRight
from benchmarks.step_model import response_lengths
from papo.commands import front_door
from papo.commands.training.plan import Plan, make_plan
from papo.commands.training.preflight import make_trainer
from papo.commands.training.run import make_module
from papo.models import VisionLanguagePolicy
from papo.parallel import NoSharding, Ranks, Sharding
from papo.training import TrainingModule, fit
from papo.types import Problem, PromptGroup, Responses

GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large the questions are.

    Attributes:
        grid: patches of a picture.
        prompt_tokens: P, the picture's among them.
        mean, limit: tokens of a response.
        rows: responses decoded side by side, few to many.
        prompts: of a step whose responses are given, of one that samples, and of comparisons.
        sampled_tokens: of a response, where it is sampled.
        product: side of the matrices of a product.
    """

    grid: tuple[int, int]
    prompt_tokens: int
    mean: int
    limit: int
    rows: tuple[int, ...]
    prompts: tuple[int, int, int]
    sampled_tokens: int
    product: int


PUBLISHED = Sizes(
    grid=(48, 64),
    prompt_tokens=1024,
    mean=400,
    limit=2048,
    rows=(255, 50, 5),
    prompts=(16, 24, 8),
    sampled_tokens=64,
    product=8192,
)
# The published limits of a picture would make it thousands of patches; the toy's configuration lifts them.
TOY = Sizes(
    grid=(4, 4),
    prompt_tokens=24,
    mean=4,
    limit=8,
    rows=(4, 2),
    prompts=(2, 2, 2),
    sampled_tokens=4,
    product=128,
)
TOY_SETTINGS = (
    *("trainer.accelerator=cpu", "model.min_pixels=784", "rollout.num_responses=2"),
    *("rollout.max_rows=8", "model.head_chunk_size=64"),
)


class Setting:
    """The experiment, its policy on the device, and measuring.

    Args:
        experiment: a file of conf/experiment.
        is_toy: a tiny model on a CPU; the code is the same.
    """

    def __init__(self, *, experiment: str, is_toy: bool) -> None:
        self.experiment, self.is_toy = experiment, is_toy
        self.sizes = TOY if is_toy else PUBLISHED
        self.device = torch.device("cpu" if is_toy else "cuda", None if is_toy else 0)
        self._policy: VisionLanguagePolicy | None = None
        self._precision: Any = None
        self._configs: dict[tuple[str, ...], DictConfig] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "Setting":
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def plan(self, *overrides: str, prompts: int, rollouts: int = 2) -> Plan:
        """The experiment's plan for rollouts of so many prompts and one update each; grading costs nothing."""
        config = self._composed(overrides).copy()
        for name, value in (
            ("prompts_per_rollout", prompts),
            ("prompts_per_minibatch", prompts),
            ("num_rollouts", rollouts),
        ):
            config.training[name] = value
        return replace(make_plan(config), reward=EverySecondOneIsRight(), callbacks=[])

    def _composed(self, overrides: tuple[str, ...]) -> DictConfig:
        """What the command with these settings composes; once, for Hydra takes its time."""
        if overrides not in self._configs:
            settings = (
                *(f"+experiment={self.experiment}", f"run_dir={self.folder}"),
                *(TOY_SETTINGS if self.is_toy else ()),
                f"rollout.max_response_tokens={self.sizes.limit}",
                # One way in every cell, whatever they leave free: as on the GPU that has just room.
                "model.gradient_checkpointing=true",
                *overrides,
            )
            with initialize_config_dir(config_dir=front_door.CONFIG_FOLDER, version_base="1.3"):
                self._configs[overrides] = compose("train", overrides=list(settings))
        return self._configs[overrides]

    @property
    def policy(self) -> VisionLanguagePolicy:
        """The experiment's policy with random weights, on the device; cells train it a little."""
        if self._policy is None:
            plan = self.plan(prompts=1)
            self._policy = random_policy(plan.config.model, self.device, is_toy=self.is_toy)
        return self._policy

    def forget_policy(self) -> None:
        """The next cell gets another one."""
        self._policy = None

    def scoring_by(self, backend: str) -> VisionLanguagePolicy:
        """The policy's model with another setting of model.scoring."""
        node = self.plan(prompts=1).config.model
        node.scoring = backend
        return assembled(node, self.policy.model, self.policy.encoder.tokenizer)

    def problems(self, count: int) -> list[Problem]:
        """Noise and words of the published shape."""
        sizes = self.sizes
        return problems(
            self.policy,
            grid=sizes.grid,
            prompt_tokens=sizes.prompt_tokens,
            count=count,
        )

    def groups(self, count: int) -> tuple[PromptGroup, ...]:
        return self.policy.encode(self.problems(count))

    def written(self, mean: int | None = None) -> "WrittenResponses":
        """An engine that takes no time."""
        mean = self.sizes.mean if mean is None else mean
        return WrittenResponses(policy=self.policy, mean=mean, limit=self.sizes.limit)

    def precision(self) -> AbstractContextManager[Any]:
        """The context of a training step: trainer.precision, as the run's Trainer has it."""
        if self._precision is None:
            plan = self._on_device(self.plan(prompts=1))
            trainer = make_trainer(plan, [], Ranks(), self.device, NoSharding())
            self._precision = trainer.precision_plugin
        context: AbstractContextManager[Any] = self._precision.forward_context()
        return context

    def steps(
        self,
        plan: Plan,
        engine: Any,
        *,
        sharding: Sharding | NoSharding | None = None,
        before: Callable[[TrainingModule], None] | None = None,
    ) -> list["TimedStep"]:
        """Trains as train.py does; returns each step's times.

        Args:
            plan: how many rollouts, of how many prompts.
            engine: samples.
            sharding: of the weights.
            before: called with the module before the first step.
        """
        sharding = sharding or NoSharding()
        watch = Watch(self)
        plan = self._on_device(replace(plan, callbacks=[watch]))
        # Runs of different objectives have different columns in their metrics.
        plan.config.run_dir = tempfile.mkdtemp(dir=self.folder)
        trainer = make_trainer(plan, [], Ranks(), self.device, sharding)
        module = make_module(
            plan,
            self.policy,
            engine,
            self.problems(plan.settings.prompts_per_rollout),
            Ranks(),
            sharding,
            device=self.device,
            failure_folder=self.folder,
        )
        if before is not None:
            before(module)
        fit(trainer, module, None)
        return watch.steps

    def _on_device(self, plan: Plan) -> Plan:
        strategy = StaysOnDevice(device=self.device)
        return replace(plan, make_trainer=partial(plan.make_trainer, strategy=strategy))

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(
        self, call: Callable[[], object], *, repetitions: int = 3, warm_ups: int = 1
    ) -> float:
        """Median wall seconds; the device is waited for at both ends."""
        for _ in range(warm_ups):
            call()
        found = []
        for _ in range(1 if self.is_toy else repetitions):
            self.wait()
            started = time.perf_counter()
            call()
            self.wait()
            found.append(time.perf_counter() - started)
        return float(np.median(found))

    def peak_gib(self, call: Callable[[], object]) -> float | None:
        """The most that was allocated meanwhile; None on a CPU."""
        self.reset_peak()
        call()
        return self.peak_since_reset()

    def reset_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_since_reset(self) -> float | None:
        if self.device.type != "cuda":
            return None
        return torch.cuda.max_memory_allocated(self.device) / GIB

    def tidy(self) -> None:
        """Frees what the last cell left.

        Raises:
            RuntimeError: the device is lost.
        """
        if self._policy is not None:
            self._policy.zero_grad(set_to_none=True)
        gc.collect()
        if self.device.type == "cuda":
            self.wait()
            torch.cuda.empty_cache()


class StaysOnDevice(SingleDeviceStrategy):
    """One device, from which nothing is moved at the end: the next cell would move it back."""

    def teardown(self) -> None:
        self.precision_plugin.teardown()
        assert self.accelerator is not None
        self.accelerator.teardown()
        self.checkpoint_io.teardown()


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedStep:
    """One training step.

    Attributes:
        seconds: wall seconds by phase: rollout, reward, score, update.
        peak_gib: the most that was allocated in it; None on a CPU.
        response_tokens: that were trained on.
        groups: its prompts.
        mask: of its responses.
    """

    seconds: dict[str, float]
    peak_gib: float | None
    response_tokens: int
    groups: tuple[PromptGroup, ...]
    mask: Tensor


class Watch(Callback):
    """Times steps; the device is waited for between scoring and update, which train.py has no need to do."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.steps: list[TimedStep] = []

    def on_train_start(self, trainer: Any, module: Any) -> None:
        collect = module.collector.collect

        def collected(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            rollout = collect(*arguments, **named)
            self.setting.wait()
            other = rollout.seconds["rollout"] + rollout.seconds["reward"]
            score = time.perf_counter() - started - other
            return replace(rollout, seconds={**rollout.seconds, "score": score})

        module.collector.collect = collected

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        self.setting.wait()
        self.setting.reset_peak()

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.setting.wait()
        last = module.last_step
        self.steps.append(
            TimedStep(
                seconds=dict(last.seconds),
                peak_gib=self.setting.peak_since_reset(),
                response_tokens=int(last.rollout.batch.response_mask.sum()),
                groups=last.rollout.batch.groups,
                mask=last.rollout.batch.response_mask.cpu(),
            )
        )


class WrittenResponses:
    """Stands where a sampler does: random tokens of drawn lengths, each as likely as any other.

    Args:
        policy: whose vocabulary they are from.
        mean: of their lengths; the limit itself has them all that long.
        limit: of their lengths.
    """

    def __init__(self, *, policy: VisionLanguagePolicy, mean: int, limit: int) -> None:
        self.policy, self.mean, self.limit = policy, mean, limit

    def follow(self, source: object, version: str) -> None:
        """Its tokens depend on no weights."""

    def sample(
        self, groups: Sequence[PromptGroup], num_responses: int, seeds: Sequence[int]
    ) -> Responses:
        count = len(groups) * num_responses
        rng = np.random.default_rng(seeds[0])
        lengths = torch.full((count,), self.limit)
        if self.mean < self.limit:
            drawn = response_lengths(self.mean, (count,), rng, limit=self.limit)
            lengths = torch.from_numpy(drawn)
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        vocabulary = self.policy.adapter.head_weight.shape[0]
        ids = torch.from_numpy(rng.integers(100, vocabulary, mask.shape))
        return Responses(
            ids=ids,
            mask=mask,
            logprobs=torch.where(mask, -float(np.log(vocabulary)), 0.0),
            finished=torch.zeros(count, dtype=torch.bool),
            texts=("",) * count,
        )
