"""Makes PerceptionLab's warm start from nothing: a tiny vision-language model that half-ignores pictures.

    python scripts/warm_start_lab.py --output outputs/warm_start [--seed 1] [--sloppiness 0.95]
    python scripts/warm_start_lab.py --output outputs/warm_start_quadrilateral --shape quadrilateral
    python scripts/warm_start_lab.py --output outputs/warm_start_qwen3_5 --family qwen3_5

Three stages of imitation (negative log-likelihood of demonstrations, fresh scenes at every step):
read clean drawings, read hard ones, then imitate sloppy transcripts that often guess a reading from
the question. The result is an ordinary Hugging Face folder plus recipe.json: the command, the
seeds, the versions, the hash of the weights and the measured accuracy. On a CPU with one thread
(set here) the weights depend on the seed alone, as long as versions and processor are the same.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import transformers
from jaxtyping import Float
from rich.console import Console
from torch import Tensor

from papo.lab import (
    SHAPES,
    PerceptionLabProblems,
    Shape,
    compare_reports,
    demonstration,
    encode_responses,
    evaluate_lab,
    held_out_sets,
    save_untrained_model,
    shape_named,
    weights_sha256,
)
from papo.lab.scene import IMAGE_SIZE
from papo.models import VisionLanguagePolicy, load_policy
from papo.models.families import FAMILIES, SUPPORTED_FAMILIES, Family, TinySizes
from papo.parallel import Ranks
from papo.rollout import SharedPrefillSampler
from papo.types import IMAGE, Problem, PromptGroup, derive_seed

SHIPPED_FAMILY = "qwen2_5_vl"
ZIPF_EXPONENT = 1.0
BATCH_SIZE = 64
MAX_GRAD_NORM = 1.0
LEARNING_RATE_WARMUP_STEPS = 20
MAX_RESPONSE_TOKENS = {"rectangle": 24, "quadrilateral": 44}
HEAD_CHUNK_SIZE = 1536
NUM_MEASURED_PROBLEMS = 500
NUM_MEASURED_RESPONSES = 4
NUM_CHECKED_PROBLEMS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of imitation.

    Attributes:
        uniform_steps: steps at the start with uniform numbers, so that reading pays from the start.
        clean_steps: steps at difficulty 0; then it rises linearly, by 1 in `ramp_steps` steps.
        ramp_steps: 0 means full difficulty from the first step on.
        sloppiness: probability that a demonstrated reading is a guess.
    """

    name: str
    steps: int
    learning_rate: float
    uniform_steps: int
    clean_steps: int
    ramp_steps: int
    sloppiness: float

    def difficulty(self, step: int) -> float:
        if self.ramp_steps == 0:
            return 1.0
        return min(1.0, max(0.0, (step - self.clean_steps) / self.ramp_steps))


_RECTANGLE_STAGES = (
    Stage(
        name="read clean drawings",
        steps=450,
        learning_rate=2e-3,
        uniform_steps=200,
        clean_steps=150,
        ramp_steps=450,
        sloppiness=0.0,
    ),
    Stage(
        name="read hard drawings",
        steps=600,
        learning_rate=1e-3,
        uniform_steps=0,
        clean_steps=0,
        ramp_steps=0,
        sloppiness=0.0,
    ),
    Stage(
        name="imitate sloppy transcripts",
        steps=100,
        learning_rate=1e-3,
        uniform_steps=0,
        clean_steps=0,
        ramp_steps=0,
        sloppiness=0.7,
    ),
)
# Four readings and three steps: longer to learn, and at 0.7 sloppy transcripts are hardly ever right.
_QUADRILATERAL_STAGES = (
    replace(_RECTANGLE_STAGES[0], steps=600),
    _RECTANGLE_STAGES[1],
    replace(_RECTANGLE_STAGES[2], sloppiness=0.5),
)
STAGES = {"rectangle": _RECTANGLE_STAGES, "quadrilateral": _QUADRILATERAL_STAGES}


def model_of(family: Family, tokenizer: Any) -> tuple[Any, Any]:
    """A random model of a family as large as the shipped one, and its image processor: pictures fill whole tokens, or one tile."""
    # Four layers are the fewest of those that repeat one kind of layer thrice (Qwen3.5).
    sizes = TinySizes(
        hidden_size=64,
        num_layers=4 if family is FAMILIES["qwen3_5"] else 2,
        num_heads=4,
        num_key_value_heads=2,
        intermediate_size=192,
        vision_hidden_size=64,
        vision_depth=2,
        vision_num_heads=4,
        initializer_range=0.05,
    )
    model = family.tiny_model(sizes, tokenizer)
    processor = family.tiny_processor(model.config)
    pictures = family.pictures(processor, tokenizer, model.config)
    channels = 3 * pictures.frames
    patch = round((family.adapter.patch_channels(model.config) / channels) ** 0.5)
    smallest = family.adapter.smallest_picture(model.config).rows * patch
    pixels = (-(-IMAGE_SIZE // smallest) * smallest) ** 2
    pictures.limit(min_pixels=pixels, max_pixels=pixels)
    return model, processor


def write_untrained(folder: Path, *, family: str, seed: int, shape: Shape) -> None:
    """Writes a lab model of a family before it is trained; of SHIPPED_FAMILY the shipped one."""
    if family == SHIPPED_FAMILY:
        save_untrained_model(folder, seed=seed, shape=shape)
        return
    found = FAMILIES[family]
    make = partial(model_of, found)
    save_untrained_model(folder, seed=seed, shape=shape, make=make, dialect=found)


def load(folder: Path) -> VisionLanguagePolicy:
    """Returns the policy of a folder, loaded as any other model is."""
    return load_policy(
        path=str(folder),
        hub_id=None,
        revision=None,
        dtype="float32",
        attn_implementation="sdpa",
        min_pixels=None,
        max_pixels=None,
        gradient_checkpointing=False,
        freeze_vision=False,
        temperature=1.0,
        scoring="twopass",
        head_chunk_size=HEAD_CHUNK_SIZE,
        trust_remote_code=False,
    )


class BatchEncoder:
    """Encodes many scenes at once: prompts of one question differ in nothing but their picture."""

    def __init__(self, policy: VisionLanguagePolicy) -> None:
        self.policy = policy
        self.templates: dict[str, PromptGroup] = {}

    def __call__(self, problems: Sequence[Problem]) -> list[PromptGroup]:
        patches = self.policy.process_images([problem.images[0] for problem in problems])
        return [
            replace(self._template(problem), problem=problem, patches=own)
            for problem, own in zip(problems, patches.chunk(len(problems)), strict=True)
        ]

    def _template(self, problem: Problem) -> PromptGroup:
        if problem.question not in self.templates:
            self.templates[problem.question] = self.policy.encode([problem])[0]
        return self.templates[problem.question]


def train_stage(
    policy: VisionLanguagePolicy, stage: Stage, stage_index: int, *, seed: int, shape: Shape
) -> Iterator[Float[Tensor, ""]]:
    """Trains `policy` in place and yields the loss of every step, in nats per token."""
    encode = BatchEncoder(policy)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=stage.learning_rate, weight_decay=0.0)
    rng = np.random.default_rng(derive_seed(seed, "demonstrations", stage_index))
    for step in range(stage.steps):
        scenes = PerceptionLabProblems(
            seed=derive_seed(seed, "scenes", stage_index),
            prior="uniform" if step < stage.uniform_steps else "training",
            zipf_exponent=ZIPF_EXPONENT,
            difficulty=stage.difficulty(step),
            size=stage.steps * BATCH_SIZE,
            shape=shape.name,
        )
        problems = [scenes[step * BATCH_SIZE + i] for i in range(BATCH_SIZE)]
        texts = [
            demonstration(p, rng, sloppiness=stage.sloppiness, zipf_exponent=ZIPF_EXPONENT)
            for p in problems
        ]
        ids, mask = encode_responses(policy.encoder.tokenizer, texts)
        for group in optimizer.param_groups:
            group["lr"] = stage.learning_rate * min(1.0, (step + 1) / LEARNING_RATE_WARMUP_STEPS)
        scores = policy.score(encode(problems), ids, mask)
        loss = -scores[IMAGE].logprobs.sum() / mask.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        yield loss.detach()


def make_warm_start(
    output: Path,
    *,
    shape: Shape,
    seed: int,
    family: str,
    sloppiness: float | None,
    max_steps: int | None,
    num_measured: int,
    console: Console,
) -> dict[str, Any]:
    """Writes the warm start into `output` and returns its recipe.

    Args:
        output: an empty or new folder.
        shape: of the world whose scenes it reads.
        seed: of weights, scenes and demonstrations.
        family: of the model; the shipped one is of SHIPPED_FAMILY.
        sloppiness: of the last stage's demonstrations: how much the policy leaves to guessing; None
            for the shape's own.
        max_steps: cuts every stage to at most this many steps (a smoke run); None for the recipe.
        num_measured: problems of each test set that the recipe's accuracy is measured on.
        console: where progress is printed.

    Raises:
        ValueError: the folder holds something already, max_steps < 1, or sloppiness is no probability.
    """
    *first, last = STAGES[shape.name]
    default = last.sloppiness
    sloppiness = default if sloppiness is None else sloppiness
    if not 0.0 <= sloppiness <= 1.0:
        raise ValueError(f"sloppiness is a probability; got {sloppiness}. Set --sloppiness.")
    if output.exists() and any(output.iterdir()):
        raise ValueError(f"the folder {output} already holds files; set --output to a new one")
    if max_steps is not None and max_steps < 1:
        raise ValueError(f"every stage needs at least 1 step; got {max_steps}. Set --steps.")
    torch.set_num_threads(1)
    start = time.perf_counter()
    write_untrained(output, family=family, seed=seed, shape=shape)
    policy = load(output)
    last = replace(last, sloppiness=sloppiness)
    stages = [replace(s, steps=min(s.steps, max_steps or s.steps)) for s in (*first, last)]
    for stage_index, stage in enumerate(stages):
        losses = train_stage(policy, stage, stage_index, seed=seed, shape=shape)
        for step, loss in enumerate(losses, start=1):
            if not torch.isfinite(loss):
                raise ValueError(f"the loss of stage {stage.name!r} became {loss} at step {step}")
            if step % 50 == 0 or step == stage.steps:
                elapsed = time.perf_counter() - start
                console.print(
                    f"{stage.name}: step {step}/{stage.steps}, loss {loss:.3f}, {elapsed:.0f} s"
                )
    policy.model.save_pretrained(output)

    engine = SharedPrefillSampler(
        policy=policy,
        temperature=1.0,
        top_p=1.0,
        top_k=None,
        max_response_tokens=MAX_RESPONSE_TOKENS[shape.name],
        max_rows=256,
    )
    sets = held_out_sets(
        zipf_exponent=ZIPF_EXPONENT, difficulty=1.0, size=num_measured, shape=shape.name
    )
    num_checked = min(NUM_CHECKED_PROBLEMS, num_measured)
    report, check = (
        evaluate_lab(
            policy,
            engine,
            sets,
            num_problems=num_problems,
            num_responses=NUM_MEASURED_RESPONSES,
            seed=seed,
            ranks=Ranks(),
        )
        for num_problems in (num_measured, num_checked)
    )
    console.print(compare_reports({"warm start": report}))
    command = f"python scripts/warm_start_lab.py --output DIR --seed {seed}"
    if shape.name != "rectangle":
        command += f" --shape {shape.name}"
    if family != SHIPPED_FAMILY:
        command += f" --family {family}"
    if sloppiness != default:
        command += f" --sloppiness {sloppiness}"
    if max_steps is not None:
        command += f" --steps {max_steps}"
    recipe = {
        "command": command,
        "seed": seed,
        "seconds": round(time.perf_counter() - start),
        "zipf_exponent": ZIPF_EXPONENT,
        "batch_size": BATCH_SIZE,
        "max_grad_norm": MAX_GRAD_NORM,
        "learning_rate_warmup_steps": LEARNING_RATE_WARMUP_STEPS,
        "stages": [asdict(stage) for stage in stages],
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "numpy": np.__version__,
            "pillow": PIL.__version__,
        },
        "weights_sha256": weights_sha256(output),
        "measured": report.to_dict(),
        "check": {
            "num_problems": num_checked,
            "num_responses": NUM_MEASURED_RESPONSES,
            "seed": seed,
            "accuracy": {name: s.accuracy.value for name, s in check.sets.items()},
        },
    }
    (output / "recipe.json").write_text(json.dumps(recipe, indent=2) + "\n", "utf-8")
    return recipe


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description="Make PerceptionLab's warm start from nothing.")
    parser.add_argument("--output", type=Path, required=True, help="new folder to write")
    parser.add_argument("--seed", type=int, default=1, help="of weights and scenes (shipped: 1)")
    parser.add_argument(
        "--shape",
        default="rectangle",
        help=f"of the scenes: {', '.join(SHAPES)} (default: %(default)s)",
    )
    parser.add_argument(
        "--family",
        default=SHIPPED_FAMILY,
        choices=SUPPORTED_FAMILIES,
        help="of the model (default: %(default)s)",
    )
    parser.add_argument(
        "--sloppiness",
        type=float,
        help="probability that a reading of the last stage is a guess (shipped: 0.7; quadrilateral: 0.5)",
    )
    parser.add_argument("--steps", type=int, help="cut every stage to this many steps (smoke run)")
    options = parser.parse_args(arguments)
    transformers.utils.logging.disable_progress_bar()
    console = Console()
    try:
        recipe = make_warm_start(
            options.output,
            shape=shape_named(options.shape),
            seed=options.seed,
            family=options.family,
            sloppiness=options.sloppiness,
            max_steps=options.steps,
            num_measured=NUM_MEASURED_PROBLEMS,
            console=console,
        )
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    console.print(f"wrote {options.output} in {recipe['seconds']} s")


if __name__ == "__main__":
    main(sys.argv[1:])
