"""Whole PAPO steps of Qwen2.5-VL-3B and 7B architectures on one GPU, without network.

    python -m benchmarks.gpu                       # everything; writes outputs/benchmarks/gpu.json
    python -m benchmarks.gpu --model 3b --adaptation lora --ways shared plain
    python -m benchmarks.gpu --toy                 # the same code on a CPU, at toy size

Weights are random bfloat16 built from benchmarks/configs; gradient checkpointing is on. A step is a
rollout, the masked view without gradient, and one update (forward and backward per prompt, AdamW).
Three ways to do it: `shared` (this project's default), `padded` (its oracle backend for scoring) and
`plain` (what trainers do: `generate` and the Hugging Face forward pass on inputs repeated G times,
log_softmax over all logits).
"""

import argparse
import gc
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForImageTextToText,
    GenerationConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from benchmarks.measure import OUTPUT, environment, spread
from benchmarks.models import (
    build_word_tokenizer,
    generate_plain,
    plain_logprobs,
    policy_of,
    problems,
    step_config,
)
from benchmarks.report import repetition_count
from benchmarks.scoring import FORWARD_AND_BACKWARD, SHARED, GroupCase, group_case, group_flops
from papo.masking import RandomPatchMask
from papo.rollout import SharedPrefillSampler
from papo.types import PromptGroup, derive_seeds

CONFIGS = Path(__file__).parent / "configs"
WAYS = ("shared", "flex", "padded", "plain")
CPU_WAYS = ("shared", "padded", "plain")  # FlexAttention has no backward pass on a CPU
ADAPTATIONS = ("full", "lora")
PHASES = ("rollout", "masked_view", "update")
LORA = {
    "language": {
        "r": 64,
        "alpha": 128,
        "targets": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    },
    "vision": None,
}

PUBLISHED_SHAPES = tuple(
    group_case(1024, tokens, num_responses) for tokens in (512, 2048) for num_responses in (5, 8)
)
TOY_SHAPES = (GroupCase(prompt_tokens=24, response_tokens=6, num_responses=3, grid=(4, 4)),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Steps of one model in one way.

    Attributes:
        seconds: median wall seconds of each phase, and of the step.
        tokens_per_second: response tokens written and trained on, per second of a step.
        mfu: operations of the least exact step (image and prompt once per group and view, no
            recomputation) / time / measured peak. With LoRA a backward pass costs less than the two
            forward passes counted for it.
        peak_gib: most memory allocated on the device; None on a CPU.
        failure: why there are no numbers, e.g. out of memory.
    """

    model: str
    adaptation: str
    way: str
    shape: str
    num_prompts: int
    repetitions: int
    seconds: dict[str, float] | None = None
    tokens_per_second: float | None = None
    mfu: float | None = None
    peak_gib: float | None = None
    failure: str = ""


def load_config(name: str, tokenizer: Any) -> Qwen2_5_VLConfig:
    """A shipped configuration, whose special tokens are those of the word tokenizer."""
    if name == "toy":
        return step_config(tokenizer)
    config = Qwen2_5_VLConfig(
        **json.loads((CONFIGS / f"qwen2_5_vl_{name}.json").read_text("utf-8"))
    )
    ids = tokenizer.get_vocab()
    for field in ("image", "video"):
        setattr(config, f"{field}_token_id", ids[f"<|{field}_pad|>"])
    for field in ("start", "end"):
        setattr(config, f"vision_{field}_token_id", ids[f"<|vision_{field}|>"])
    return config


def vocabulary_of(name: str) -> int:
    if name == "toy":
        return 2048
    content = json.loads((CONFIGS / f"qwen2_5_vl_{name}.json").read_text("utf-8"))
    return int(content["text_config"]["vocab_size"])


def build(name: str, device: torch.device) -> tuple[Qwen2_5_VLForConditionalGeneration, Any]:
    """The model with random bfloat16 weights on the device, and a tokenizer of its vocabulary."""
    tokenizer = build_word_tokenizer(vocabulary_of(name))
    config = load_config(name, tokenizer)
    torch.manual_seed(0)
    with device:
        model = AutoModelForImageTextToText.from_config(
            config, dtype=torch.bfloat16, attn_implementation="sdpa"
        )
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model.eval(), tokenizer


class Clock:
    """Wall seconds per phase; waits for the device at both ends of each."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, list[float]] = {phase: [] for phase in PHASES}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        self._wait()
        started = time.perf_counter()
        yield
        self._wait()
        self.seconds[phase].append(time.perf_counter() - started)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class Step:
    """One model, its prompts and optimiser, and a PAPO step in one of the ways."""

    def __init__(
        self, *, name: str, adaptation: str, way: str, num_prompts: int, device: torch.device
    ) -> None:
        self.way, self.num_prompts, self.device = way, num_prompts, device
        self.model, tokenizer = build(name, device)
        self.policy = policy_of(
            self.model,
            tokenizer,
            scoring=way if way in ("flex", "padded") else SHARED,
            gradient_checkpointing=True,
            head_chunk_size=256,
            lora=LORA if adaptation == "lora" else None,
        )
        self.trainable = [p for p in self.policy.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trainable, lr=1e-6, weight_decay=0.0)
        self.mask = RandomPatchMask(
            ratio=0.6, grid="patch", raw_square_pixels=14, merge_size=2, seed=0
        )

    def encode(self, case: GroupCase) -> tuple[PromptGroup, ...]:
        """The groups of a step, with their masked views."""
        groups = self.policy.encode(
            problems(
                self.policy,
                grid=case.grid,
                prompt_tokens=case.prompt_tokens,
                count=self.num_prompts,
            )
        )
        generator = torch.Generator().manual_seed(0)
        return tuple(
            replace(group, masked_patches=self.mask(group, generator, self.policy.process_images))
            for group in groups
        )

    def run(self, groups: tuple[PromptGroup, ...], case: GroupCase, clock: Clock) -> None:
        size = case.num_responses
        with clock("rollout"), torch.no_grad():
            ids = self._rollout(groups, case).to(self.device)
        rows = [slice(i * size, (i + 1) * size) for i in range(len(groups))]
        with clock("masked_view"), torch.no_grad():
            hidden = [replace(group, patches=group.masked_patches) for group in groups]
            masked = [self._score(group, ids[row]) for group, row in zip(hidden, rows, strict=True)]
        with clock("update"):
            self.optimizer.zero_grad()
            for group, row, masked_logprobs in zip(groups, rows, masked, strict=True):
                loss = _loss(self._score(group, ids[row]), masked_logprobs)
                (loss / len(groups)).backward()
            torch.nn.utils.clip_grad_norm_(self.trainable, 1.0)
            self.optimizer.step()

    def _rollout(self, groups: tuple[PromptGroup, ...], case: GroupCase) -> torch.Tensor:
        if self.way == "plain":
            self.model.eval()
            return generate_plain(
                self.model, groups, case.num_responses, case.response_tokens, self.device
            )
        sampler = SharedPrefillSampler(
            policy=self.policy,
            temperature=1.0,
            top_p=1.0,
            top_k=None,
            max_response_tokens=case.response_tokens,
            max_rows=self.num_prompts * case.num_responses,
        )
        return sampler.sample(groups, case.num_responses, derive_seeds(0, len(groups))).ids

    def _score(self, group: PromptGroup, ids: torch.Tensor) -> torch.Tensor:
        if self.way == "plain":
            # transformers recomputes activations in training mode only.
            self.model.train(torch.is_grad_enabled())
            return plain_logprobs(self.model, group, ids)
        scores = self.policy.score(
            (group,),
            ids,
            torch.ones_like(ids, dtype=torch.bool),
            masked_view=False,
            full_vocabulary=False,
        )
        return scores.logprobs


def _loss(logprobs: torch.Tensor, masked_logprobs: torch.Tensor) -> torch.Tensor:
    """The surrogate of advantages +1 and -1 in turn, minus 0.02 x the k3 perception KL."""
    advantages = 1.0 - 2.0 * torch.arange(len(logprobs), device=logprobs.device).remainder(2)
    ratio = (logprobs - logprobs.detach()).exp()
    log_ratio = masked_logprobs - logprobs
    perception_kl = torch.expm1(log_ratio) - log_ratio
    return -(ratio * advantages[:, None]).mean() - 0.02 * perception_kl.mean()


def peak_flops_per_second(device: torch.device) -> float:
    """What a large bfloat16 matrix product reaches on this device."""
    size = 8192 if device.type == "cuda" else 256
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    clock = Clock(device)
    for _ in range(10):
        with clock("update"):
            left @ right
    return 2 * size**3 / min(clock.seconds["update"])


def measure(
    step: Step,
    case: GroupCase,
    *,
    peak: float,
    repetitions: int,
    model: str,
    adaptation: str,
) -> Measurement:
    """Medians over `repetitions` steps after one that is thrown away."""
    blank = Measurement(
        model=model,
        adaptation=adaptation,
        way=step.way,
        shape=case.name,
        num_prompts=step.num_prompts,
        repetitions=repetitions,
    )
    on_gpu = step.device.type == "cuda"
    groups = step.encode(case)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(step.device)
    clock = Clock(step.device)
    try:
        step.run(groups, case, Clock(step.device))
        for _ in range(repetitions):
            step.run(groups, case, clock)
    except torch.cuda.OutOfMemoryError:
        return replace(blank, failure="out of memory")
    phases = {phase: spread(values).median for phase, values in clock.seconds.items()}
    seconds = {**phases, "step": sum(phases.values())}
    one_pass = group_flops(step.model.config, case).shared
    # Rollout and masked view are one forward pass each; the update is a forward and a backward pass.
    operations = step.num_prompts * one_pass * (2 + FORWARD_AND_BACKWARD)
    tokens = step.num_prompts * case.num_responses * case.response_tokens
    return replace(
        blank,
        seconds=seconds,
        tokens_per_second=tokens / seconds["step"],
        mfu=operations / seconds["step"] / peak,
        peak_gib=torch.cuda.max_memory_allocated(step.device) / 2**30 if on_gpu else None,
    )


def lines(measurements: list[Measurement]) -> str:
    """The table."""
    rows: list[tuple[str, ...]] = [
        ("model", "weights", "way", "shape", *PHASES, "step s", "tokens/s", "MFU", "peak GiB")
    ]
    for each in measurements:
        labels = (each.model, each.adaptation, each.way, each.shape)
        if each.seconds is None:
            rows.append((*labels, *("-",) * 6, each.failure))
            continue
        assert each.tokens_per_second is not None
        assert each.mfu is not None
        memory = "-" if each.peak_gib is None else f"{each.peak_gib:.1f}"
        rows.append(
            (
                *labels,
                *(f"{each.seconds[phase]:.2f}" for phase in (*PHASES, "step")),
                f"{each.tokens_per_second:.0f}",
                f"{100 * each.mfu:.1f} %",
                memory,
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def run(
    *,
    models: list[str],
    adaptations: list[str],
    ways: list[str],
    shapes: tuple[GroupCase, ...],
    num_prompts: int,
    repetitions: int,
    device: torch.device,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Measures every combination; what does not fit is said and skipped."""
    peak = peak_flops_per_second(device)
    measurements: list[Measurement] = []
    for model in models:
        for adaptation in adaptations:
            for way in ways:
                step = Step(
                    name=model,
                    adaptation=adaptation,
                    way=way,
                    num_prompts=num_prompts,
                    device=device,
                )
                for case in shapes:
                    measurements.append(
                        measure(
                            step,
                            case,
                            peak=peak,
                            repetitions=repetitions,
                            model=model,
                            adaptation=adaptation,
                        )
                    )
                    say(lines(measurements[-1:]).splitlines()[-1])
                del step
                gc.collect()
                if device.type == "cuda":
                    torch.cuda.empty_cache()
    say(lines(measurements))
    return {
        **environment(),
        "peak_tflops": peak / 1e12,
        "measurements": [asdict(each) for each in measurements],
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("--toy", action="store_true", help="toy size, on the CPU")
    parser.add_argument("--model", nargs="+", choices=("3b", "7b"), default=["3b", "7b"])
    parser.add_argument("--adaptation", nargs="+", choices=ADAPTATIONS, default=list(ADAPTATIONS))
    parser.add_argument("--ways", nargs="+", choices=WAYS)
    parser.add_argument("--prompts", type=int, default=4, help="prompts per step")
    parser.add_argument("--repetitions", type=repetition_count, default=2)
    parser.add_argument("--output", type=Path, default=OUTPUT / "gpu.json")
    chosen = parser.parse_args(arguments)
    if not chosen.toy and not torch.cuda.is_available():
        parser.error("no CUDA device here; --toy runs the same code on a CPU")
    content = run(
        models=["toy"] if chosen.toy else chosen.model,
        adaptations=chosen.adaptation,
        ways=chosen.ways or list(CPU_WAYS if chosen.toy else WAYS),
        shapes=TOY_SHAPES if chosen.toy else PUBLISHED_SHAPES,
        num_prompts=2 if chosen.toy else chosen.prompts,
        repetitions=1 if chosen.toy else chosen.repetitions,
        device=torch.device("cpu" if chosen.toy else "cuda"),
        say=lambda line: print(line, flush=True),
    )
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
