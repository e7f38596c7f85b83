"""Training steps of TRL's PAPOTrainer or GRPOTrainer, one at a time. Runs in TRL's own environment.

What has to be patched around: ProcessorMixin refuses a tokenizer of an unknown class and insists on a
video processor that needs torchvision; a sampled image token crashes the step, so vision tokens are
suppressed in sampling, here as in this project.
"""

import argparse
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    ProcessorMixin,
    Qwen2_5_VLProcessor,
    TrainerCallback,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from benchmarks.turnstile import Turnstile

NUM_STEPS = 10_000  # more than anyone waits for; the parent ends the run


class NoVideos:
    """Stands where Qwen2_5_VLProcessor wants a video processor; no prompt here has a video."""

    model_input_names = ()
    merge_size = 2
    temporal_patch_size = 2


class TakeTurns(TrainerCallback):
    """Holds the trainer before each step until it is its turn."""

    def __init__(self, turnstile: Turnstile) -> None:
        self.turnstile = turnstile

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.turnstile.say(
            versions={name: version(name) for name in ("trl", "transformers", "torch")}
        )

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.turnstile.wait()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.turnstile.finish()


def every_second_one_is_right(completions: list[Any], **columns: Any) -> list[float]:
    """A reward that costs nothing and leaves no advantage at zero."""
    return [float(index % 2) for index in range(len(completions))]


def build_processor(folder: Path) -> Qwen2_5_VLProcessor:
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    ProcessorMixin.check_argument_for_proper_class = lambda self, name, argument: type(argument)  # type: ignore[method-assign]
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessorPil.from_pretrained(folder),
        tokenizer=tokenizer,
        video_processor=NoVideos(),
        chat_template=tokenizer.chat_template,
    )


def build_dataset(folder: Path) -> Dataset:
    """The problems own_step.py wrote: pictures and questions."""
    questions = (folder / "questions.txt").read_text("utf-8").splitlines()
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": question}],
                "image": Image.open(folder / f"picture_{index}.png"),
            }
            for index, question in enumerate(questions)
        ]
    )


def build_trainer(arguments: argparse.Namespace, folder: Path, turnstile: Turnstile) -> Any:
    num_rows = arguments.num_prompts * arguments.num_responses
    processor = build_processor(arguments.model)
    vocabulary = processor.tokenizer.get_vocab()
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": num_rows,
        "gradient_accumulation_steps": 1,
        "num_generations": arguments.num_responses,
        "max_completion_length": arguments.response_tokens,
        "max_steps": NUM_STEPS,
        "learning_rate": 1e-6,
        "beta": 0.0,
        "temperature": 1.0,
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 100,
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "generation_kwargs": {
            "suppress_tokens": [
                vocabulary[f"<|{name}|>"]
                for name in ("image_pad", "video_pad", "vision_start", "vision_end")
            ]
        },
    }
    if arguments.trainer == "papo":
        from trl.experimental.papo import PAPOConfig, PAPOTrainer

        config = PAPOConfig(loss_type="grpo", mask_ratio=0.6, mask_type="random", **settings)
        trainer_class = PAPOTrainer
    else:
        from trl import GRPOConfig, GRPOTrainer

        config, trainer_class = GRPOConfig(**settings), GRPOTrainer
    return trainer_class(
        model=AutoModelForImageTextToText.from_pretrained(arguments.model, dtype=torch.float32),
        reward_funcs=every_second_one_is_right,
        args=config,
        train_dataset=build_dataset(arguments.model),
        processing_class=processor,
        callbacks=[TakeTurns(turnstile)],
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trainer", choices=("papo", "grpo"), required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--response-tokens", type=int, required=True)
    parser.add_argument("--num-prompts", type=int, required=True)
    parser.add_argument("--num-responses", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    turnstile = Turnstile()
    with tempfile.TemporaryDirectory() as folder:
        build_trainer(arguments, Path(folder), turnstile).train()


if __name__ == "__main__":
    main()
