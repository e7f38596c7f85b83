"""Whether a run has room: what it needs least, what its settings ask for, and what would make it fit."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from papo.training.memory import MemoryEstimate, estimate_memory, largest_pass, readable_bytes
from papo.training.microbatches import MicrobatchCutter
from papo.training.policy import MakeOptimizer

MOST_GPUS = 64
"""That are tried when it is said how many would do."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunMemory:
    """What the memory of a run depends on.

    Attributes:
        model, make_optimizer, has_reference, half_precision, checkpointing, head_chunk_size, on_gpu, shards,
            offloads, intervenes: as of `estimate_memory`.
        prompt_tokens, patches, microbatches, prompts_per_minibatch, num_responses, max_response_tokens, views:
            as of `largest_pass`.
        sampled_rows: responses sampled side by side.
    """

    model: Any
    make_optimizer: MakeOptimizer
    has_reference: bool
    half_precision: bool
    checkpointing: bool
    head_chunk_size: int
    on_gpu: bool
    shards: int
    offloads: bool
    intervenes: bool
    prompt_tokens: int
    patches: int
    microbatches: MicrobatchCutter
    prompts_per_minibatch: int
    num_responses: int
    max_response_tokens: int
    views: int
    sampled_rows: int

    def estimate(self) -> MemoryEstimate:
        """What its settings ask for."""
        sizes = largest_pass(
            prompt_tokens=self.prompt_tokens,
            patches=self.patches,
            microbatches=self.microbatches,
            prompts_per_minibatch=self.prompts_per_minibatch,
            num_responses=self.num_responses,
            max_response_tokens=self.max_response_tokens,
            views=self.views,
            sampled_rows=self.sampled_rows,
        )
        return estimate_memory(
            model=self.model,
            sizes=sizes,
            make_optimizer=self.make_optimizer,
            has_reference=self.has_reference,
            half_precision=self.half_precision,
            checkpointing=self.checkpointing,
            head_chunk_size=self.head_chunk_size,
            on_gpu=self.on_gpu,
            shards=self.shards,
            offloads=self.offloads,
            intervenes=self.intervenes,
        )

    def least(self) -> "RunMemory":
        """The same with a group a pass and a response at a time, to which a run goes down by itself."""
        return replace(self, prompts_per_minibatch=1, sampled_rows=1)

    def fits(self, available: int) -> bool:
        """Whether it has room, if need be with smaller passes."""
        return self.least().estimate().peak <= available


def recomputes(run: RunMemory, available: int | None) -> tuple[bool, str]:
    """Whether the passes of a run must compute activations again (`model.gradient_checkpointing=auto`).

    They must where its largest pass, with all activations kept, is more than its device holds.

    Args:
        run: what it needs.
        available: bytes of its device that are free; None where unknown, which asks for nothing.

    Returns:
        That, and the reason in a line.
    """
    kept = replace(run, checkpointing=False).estimate().moments["the update"]
    too_much = available is not None and kept > available
    free = "an unknown amount" if available is None else readable_bytes(available)
    return too_much, (
        f"gradient checkpointing: {'on' if too_much else 'off'}, for with all activations kept the update takes "
        f"about {readable_bytes(kept)}, of {free} that is free"
    )


def check_room(
    run: RunMemory,
    *,
    name: str,
    available: int | None,
    instead: Mapping[str, Callable[[RunMemory], RunMemory]],
) -> list[str]:
    """Refuses a run that cannot fit, and says what of its settings will be made smaller.

    Args:
        run: what it needs.
        name: of the model, for people.
        available: bytes of its device that are free; None where unknown.
        instead: what makes a run one of other settings, by what a command says for them.

    Returns:
        Sentences.

    Raises:
        MemoryError: a single group or response does not fit; says what each part takes, and which settings fit.
    """
    asked = run.estimate()
    said = [f"memory: {asked.summary()}"]
    if available is None or asked.peak <= available:
        return said
    least = run.least().estimate()
    if least.peak > available:
        ways = [
            text
            for text, other in {**_others(run), **instead}.items()
            if other(run).fits(available)
        ]
        ways += _gpus(run, available)
        raise MemoryError(
            f"{name} needs {least.summary()}, with passes over one prompt and one response sampled at a time; "
            f"{readable_bytes(available)} are free. "
            + (f"What fits: {'; or '.join(ways)}. " if ways else "")
            + "Else use a larger device, or a smaller model: model=tiny_qwen2_5_vl runs anywhere."
        )
    if asked.moments["sampling"] > available:
        rows = _most(
            run.sampled_rows,
            lambda rows: (
                replace(run, sampled_rows=rows).estimate().moments["sampling"] <= available
            ),
        )
        said.append(
            f"{run.sampled_rows} responses side by side, all of the longest, do not fit in "
            f"{readable_bytes(available)}; {rows} do (rollout.max_rows). Where memory runs out, they are halved."
        )
    if asked.moments["the update"] > available:
        said.append(
            f"the largest pass does not fit in {readable_bytes(available)}, and one over a prompt does "
            "(training.prompts_per_microbatch). Where memory runs out, passes are halved."
        )
    return said


def _others(run: RunMemory) -> dict[str, Callable[[RunMemory], RunMemory]]:
    """Settings that every run has, and that change no result."""
    ways: dict[str, dict[str, bool]] = {}
    if run.on_gpu and not run.offloads:
        ways["trainer.offload_while_sampling=true"] = {"offloads": True}
    if not run.checkpointing:
        ways["model.gradient_checkpointing=true"] = {"checkpointing": True}
    if len(ways) == 2:
        ways[" ".join(ways)] = {"offloads": True, "checkpointing": True}
    return {text: partial(replace, **changed) for text, changed in ways.items()}


def _gpus(run: RunMemory, available: int) -> list[str]:
    """The smallest number of GPUs that fits, in shards."""

    def is_too_few(shards: int) -> bool:
        return not replace(run, shards=shards).fits(available)

    if is_too_few(MOST_GPUS):
        return []
    shards = max(run.shards, 1)
    if is_too_few(shards + 1):
        shards = _most(MOST_GPUS, lambda one: one <= shards + 1 or is_too_few(one))
    return [f"trainer=sharded trainer.devices={shards + 1}"]


def _most(limit: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to the limit that fits; 1 does."""
    low, high = 1, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def available_bytes(device: torch.device) -> int | None:
    """Memory that is free: of the GPU, or of the machine for a run on its CPU."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo", encoding="utf-8") as lines:
            fields = dict(line.split(":", 1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
