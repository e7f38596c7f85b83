"""What a published step costs on one GPU: a model, from counted operations and named rates; nothing here is timed.

    python -m benchmarks.step_model                          # the table of variants, with assumed rates
    python -m benchmarks.step_model --rates ANSWERS.jsonl    # with those that `benchmarks.gpu` measured

Counted: operations (papo.models.flops, published architectures) and the tokens that are decoded. Assumed until
they are measured: every number of `Rates`. benchmarks/scaling.py takes it to many GPUs.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from transformers import Qwen2_5_VLConfig

from papo.models.flops import ScoringFlops, ScoringShape, shared_flops
from papo.types import PictureLayout

CONFIGS = Path(__file__).parent / "configs"
MODELS = {"3B": "qwen2_5_vl_3b", "7B": "qwen2_5_vl_7b"}
PARAMETERS = {"3B": 3.75e9, "7B": 8.29e9}

# The published rollout (conf/training/published.yaml, conf/rollout/shared_prefill.yaml).
NUM_PROMPTS, NUM_RESPONSES, LIMIT, ROWS_AT_ONCE = 384, 5, 2048, 256
# Of the responses' lengths: lognormal, one in a hundred at the limit.
SIGMA, SHARE_AT_LIMIT = 0.7, 0.01

# Forward passes of a rollout that is scored as the published runs did (fidelity=official): the reference, and the
# masked view, once and without gradient. The update then reads one view.
SCORED_VIEWS = 2
FORWARD_AND_BACKWARD = 3
"""A backward pass costs twice its forward pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What one GPU and its host do. All are assumptions (an H200) until `--rates` puts measured ones in their place.

    Attributes:
        peak: operations per second of a large bfloat16 product: what MFU divides by.
        blocks: of layers and vision tower as they are: dense attention masks, norms that are not fused.
        fused_blocks: of the same with flash or flex attention and fused norms.
        head_float32: of the vocabulary head's float32 product.
        head_bf16: of the same in bfloat16 with float32 sums.
        bytes_per_second: of memory, reached by casts and sums of all weights.
        vision_launches: seconds of a picture's pass through the tower beyond computing: a call per window and layer.
        decode_host: seconds of a decoding step of any number of rows, launched kernel by kernel.
        decode_graph: seconds of one that is replayed as a graph.
        decode_head: seconds of a step's logits and log-probabilities.
        sort: seconds of a step's draw, of sorting the vocabulary for top-p; mean over the rows that are left.
        engine_tokens: per second, of a serving engine.
        picture: seconds in which the host makes patches of a picture, and its masked copy.
    """

    peak: float = 798e12
    blocks: float = 360e12
    fused_blocks: float = 410e12
    head_float32: float = 52e12
    head_bf16: float = 360e12
    bytes_per_second: float = 3.4e12
    vision_launches: float = 0.043
    decode_host: float = 0.030
    decode_graph: float = 0.005
    decode_head: float = 0.001
    sort: float = 0.007
    engine_tokens: float = 22e3
    picture: float = 0.040


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One rollout: prompts that are alike, and the lengths of their responses (prompt x response)."""

    model: str
    prompt_tokens: int
    grid: tuple[int, int]
    responses: np.ndarray

    @property
    def flops(self) -> ScoringFlops:
        """Operations of one forward pass of one view of everything."""
        shape = ScoringShape(
            prompt_lengths=(self.prompt_tokens,) * len(self.responses),
            response_lengths=tuple(tuple(row) for row in self.responses.tolist()),
            pictures=((PictureLayout(rows=self.grid[0], columns=self.grid[1], token_side=2),),)
            * len(self.responses),
        )
        return shared_flops(configuration(self.model), shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """How a step is computed; the defaults are what the variants of the table begin with.

    `engine_ahead` is rollout.ahead=1: the engine, on a GPU of its own, writes the next rollout while this one is
    scored and learned from.
    """

    head_in_bf16: bool = False
    windows_batched: bool = False
    weights_copied: bool = False
    groups_per_pass: int = 1
    top_k_before_sort: bool = False
    graphs: bool = False
    engine: bool = False
    fused: bool = False
    recomputes: bool = True
    prepares_ahead: bool = False
    engine_ahead: bool = False

    @property
    def num_gpus(self) -> int:
        return 2 if self.engine_ahead else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Seconds of one step by phase, and its useful MFU, of all GPUs; `overlaps`: the rollout with score and update."""

    decode: float
    score: float
    update: float
    prefill: float
    pictures: float
    update_mfu: float
    step_mfu: float
    overlaps: bool = False

    @property
    def seconds(self) -> float:
        rollout, learning = self.decode + self.prefill, self.score + self.update
        both = max(rollout, learning) if self.overlaps else rollout + learning
        return both + self.pictures


@cache
def configuration(model: str) -> Qwen2_5_VLConfig:
    """The published architecture."""
    return Qwen2_5_VLConfig(**json.loads((CONFIGS / f"{MODELS[model]}.json").read_text("utf-8")))


def response_lengths(
    mean: float, shape: tuple[int, ...], rng: np.random.Generator, *, limit: int = LIMIT
) -> np.ndarray:
    """Lognormal, the given share at the limit, whole numbers of at least 1."""
    lengths = rng.lognormal(np.log(mean) - SIGMA**2 / 2, SIGMA, shape)
    lengths[rng.random(shape) < SHARE_AT_LIMIT] = limit
    return np.clip(lengths, 1, limit).astype(int)


def loop_steps(rows: np.ndarray, rows_at_once: int = ROWS_AT_ONCE) -> int:
    """Decoding steps of the loop: batches of rows in order, each as long as its longest response."""
    return sum(
        int(rows[start : start + rows_at_once].max()) for start in range(0, len(rows), rows_at_once)
    )


def model_step(work: Workload, code: Code, rates: Rates) -> Step:
    """The model."""
    flops, count = work.flops, len(work.responses)
    blocks = rates.fused_blocks if code.fused else rates.blocks
    head = flops.head / (rates.head_bf16 if code.head_in_bf16 else rates.head_float32)
    vision = flops.vision / blocks
    launches = 0.0 if code.windows_batched else rates.vision_launches * count
    decoder = (flops.prompts + flops.responses) / blocks
    forward = vision + decoder + head
    passes = count / code.groups_per_pass
    # Mixed precision reads each float32 weight and writes its bfloat16 copy, pass by pass.
    parameters = PARAMETERS[work.model]
    cast = 0.0 if code.weights_copied else 6 * parameters / rates.bytes_per_second
    # A bfloat16 gradient is read, cast, and added to the float32 one.
    summed = 18 * parameters / rates.bytes_per_second
    forwards = 2 if code.recomputes else 1
    update = (
        # The backward pass launches about as often as a forward pass.
        (forwards + 2) * forward + (forwards + 1) * launches + passes * (forwards * cast + summed)
    )
    useful = flops.total / rates.peak
    draft = Step(
        decode=_decode_seconds(work, code, rates),
        score=SCORED_VIEWS * (forward + launches + passes * cast),
        update=update,
        prefill=vision + launches + flops.prompts / blocks,
        pictures=0.0 if code.prepares_ahead else rates.picture * count,
        update_mfu=FORWARD_AND_BACKWARD * useful / update,
        step_mfu=0.0,
        overlaps=code.engine_ahead,
    )
    once_each = 1 + SCORED_VIEWS + FORWARD_AND_BACKWARD
    return replace(draft, step_mfu=once_each * useful / draft.seconds / code.num_gpus)


def _decode_seconds(work: Workload, code: Code, rates: Rates) -> float:
    if code.engine:
        return float(work.responses.sum()) / rates.engine_tokens
    each = rates.decode_graph if code.graphs else rates.decode_host
    draw = 0.0 if code.top_k_before_sort else rates.sort
    at_once = ROWS_AT_ONCE // work.responses.shape[1] * work.responses.shape[1]
    return (each + rates.decode_head + draw) * loop_steps(work.responses.ravel(), at_once)


def published_work(model: str = "3B", mean: float = 400, seed: int = 0) -> Workload:
    """384 prompts of 1,024 tokens, 768 of them image, with 5 responses of `mean` tokens on average.

    The lengths are scaled so that their mean, those at the limit included, is `mean` itself.
    """
    drawn = response_lengths(mean, (NUM_PROMPTS, NUM_RESPONSES), np.random.default_rng(seed))
    factor = mean / drawn.mean()
    scaled = np.where(drawn == LIMIT, LIMIT, np.maximum(drawn * factor, 1)).astype(int)
    return Workload(model=model, prompt_tokens=1024, grid=(48, 64), responses=scaled)


def variants() -> dict[str, Code]:
    """The table's rows; each adds to the one before, but for the engine, which is in the place of the loop."""
    rows = {"the starting point": (code := Code())}
    for name, change in (
        ("+ head in bf16 with float32 sums", {"head_in_bf16": True}),
        ("+ vision windows batched", {"windows_batched": True}),
        (
            "+ a bf16 copy of the weights, 4 groups a pass",
            {"weights_copied": True, "groups_per_pass": 4},
        ),
        ("+ top-k before the sort", {"top_k_before_sort": True}),
        ("+ CUDA graphs over a static cache", {"graphs": True}),
        ("or a serving engine", {"engine": True}),
        ("+ fused attention and norms, no recomputation", {"fused": True, "recomputes": False}),
        ("+ pictures prepared during the update", {"prepares_ahead": True}),
        ("+ one step ahead, the engine on a second GPU", {"engine_ahead": True}),
    ):
        rows[name] = code = replace(code, **change)
    return rows


def table(work: Workload, rates: Rates) -> str:
    """The variants as Markdown."""
    lines = [
        "| variant, each adds to the last | decode s | score s | update s | step s | useful MFU of update / step |",
        "|---|---|---|---|---|---|",
    ]
    for name, code in variants().items():
        step = model_step(work, code, rates)
        lines.append(
            f"| {name} | {step.decode:.0f} | {step.score:.0f} | {step.update:.0f} | {step.seconds:.0f} | "
            f"{100 * step.update_mfu:.0f} / {100 * step.step_mfu:.0f} % |"
        )
    return "\n".join(lines)


def measured_rates(answers: Iterable[Mapping[str, Any]], rates: Rates) -> tuple[Rates, list[str]]:
    """The rates with those that were measured in their place, and the names of these.

    Args:
        answers: lines of a run of `benchmarks.gpu`; each that measures a rate names it in `rates`.
        rates: what stays where nothing was measured.
    """
    known = {field.name for field in fields(Rates)}
    found = {
        name: float(value)
        for answer in answers
        for name, value in answer.get("rates", {}).items()
        if name in known
    }
    return replace(rates, **found), sorted(found)


def read_answers(file: Path) -> list[dict[str, Any]]:
    """The lines of an answers file; the last may be cut off where the machine was taken away."""
    answers = []
    for line in file.read_text("utf-8").splitlines():
        try:
            answers.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return answers


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step_model")
    parser.add_argument("--model", choices=tuple(MODELS), default="3B")
    parser.add_argument("--mean", type=float, default=400, help="tokens of a response, on average")
    parser.add_argument("--rates", type=Path, help="answers of benchmarks.gpu")
    chosen = parser.parse_args(arguments)
    rates, measured = Rates(), []
    if chosen.rates is not None:
        rates, measured = measured_rates(read_answers(chosen.rates), rates)
    print(table(published_work(chosen.model, chosen.mean), rates))
    for name, value in asdict(rates).items():
        print(f"{name}: {value:.3g} ({'measured' if name in measured else 'assumed'})")


if __name__ == "__main__":
    main()
