"""From a Problem to token ids and image patches: chat template, image slots, image processing."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from papo.models.pixel_levels import PixelLevels
from papo.types import IMAGE_MARKER, Problem, shown

# A chat template for reasoning models opens the thought in the prompt; graders want to see it.
_OPENED_THOUGHT = re.compile(r"<think>\s*\Z")


class PromptEncoder:
    """Renders and tokenises prompts and turns pictures into patches.

    Uses the image processor of the Qwen-VL family without torchvision, so that it gives the same
    patches on every machine.

    Args:
        tokenizer: with a chat template that writes one image token per image.
        image_processor: patch size, merge size, pixel limits and normalisation.
        image_token: the text of the image slot, e.g. `<|image_pad|>`.
    """

    def __init__(
        self,
        *,
        tokenizer: PreTrainedTokenizerBase,
        image_processor: Qwen2VLImageProcessorPil,
        image_token: str,
    ) -> None:
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.pixel_levels = PixelLevels(image_processor)
        self.image_token_id = tokenizer.get_vocab()[image_token]

    def render(self, problem: Problem) -> str:
        """The prompt text, with one image token per image and the assistant's turn opened.

        Raises:
            ValueError: the number of `<image>` markers is not the number of images.
        """
        segments = problem.question.split(IMAGE_MARKER)
        if len(segments) - 1 != len(problem.images):
            raise ValueError(
                f"problem {shown(problem.id)!r} of {problem.source!r}: one {IMAGE_MARKER} per image is needed; "
                f"got {len(segments) - 1} markers for {len(problem.images)} images"
            )
        content: list[Any] = []
        for index, segment in enumerate(segments):
            if index:
                content.append({"type": "image"})
            if segment:
                content.append({"type": "text", "text": segment})
        turns = [{"role": "user", "content": content}]
        if problem.system_prompt is not None:
            text = {"type": "text", "text": problem.system_prompt}
            turns.insert(0, {"role": "system", "content": [text]})
        rendered = self.tokenizer.apply_chat_template(
            cast(Any, turns),
            tokenize=False,
            add_generation_prompt=True,
        )
        return str(rendered)

    def response_prefix(self, rendered: str) -> str:
        """What the template already wrote of the response: `<think>` for reasoning models, or ''."""
        match = _OPENED_THOUGHT.search(rendered)
        return match.group() if match else ""

    def process_images(
        self, images: Sequence[Image.Image]
    ) -> tuple[Float[Tensor, "patch pixel"], Int[Tensor, "image 3"]]:
        """Normalised patches of all images, merged cells contiguous, and the grid of each image."""
        processed = self.image_processor(
            images=[image.convert("RGB") for image in images], return_tensors="pt"
        )
        return processed["pixel_values"], processed["image_grid_thw"]

    def pictures(
        self,
        patches: Float[Tensor, "patch pixel"] | UInt8[Tensor, "patch pixel"],
        image_grid_thw: Int[Tensor, "image 3"],
    ) -> tuple[Image.Image, ...]:
        """What the vision tower sees, as pictures: undoes the normalisation and the cutting."""
        patches = self.pixel_levels.unpack(patches)
        processor = self.image_processor
        side, merge, frames = (
            processor.patch_size,
            processor.merge_size,
            processor.temporal_patch_size,
        )
        mean, deviation = (
            torch.tensor(values)[:, None, None]
            for values in (processor.image_mean, processor.image_std)
        )
        pictures = []
        sizes = image_grid_thw.prod(dim=1).tolist()
        for part, (_, rows, columns) in zip(
            patches.split(sizes), image_grid_thw.tolist(), strict=True
        ):
            cells = (rows // merge, columns // merge, merge, merge)
            # A still picture is repeated along time; the first frame is the picture.
            pixels = part.reshape(*cells, 3, frames, side, side)[..., 0, :, :]
            pixels = pixels.permute(4, 0, 2, 5, 1, 3, 6).reshape(3, rows * side, columns * side)
            levels = ((pixels * deviation + mean) * 255).round().clamp(0, 255).to(torch.uint8)
            pictures.append(Image.fromarray(levels.permute(1, 2, 0).numpy()))
        return tuple(pictures)

    def num_image_tokens(self, image: Image.Image) -> int:
        """Image tokens a picture will take, without processing it."""
        patches = self.image_processor.get_number_of_image_patches(image.height, image.width)
        return int(patches) // self.image_processor.merge_size**2

    def tokenize(
        self, problem: Problem, rendered: str, num_image_tokens: Sequence[int]
    ) -> Int[Tensor, " prompt_token"]:
        """Token ids with each image slot expanded to the number of tokens of its image.

        Raises:
            ValueError: the text itself contains image tokens.
        """
        ids: list[int] = self.tokenizer(rendered, add_special_tokens=False)["input_ids"]
        if ids.count(self.image_token_id) != len(num_image_tokens):
            raise ValueError(
                f"problem {shown(problem.id)!r} of {problem.source!r}: the prompt must hold one image token per "
                f"image; got {ids.count(self.image_token_id)} for {len(num_image_tokens)} images. Either the "
                "question contains the text of the image token, or the chat template does not write it."
            )
        counts = iter(num_image_tokens)
        expanded = [
            token
            for i in ids
            for token in ([i] * next(counts) if i == self.image_token_id else [i])
        ]
        return torch.tensor(expanded, dtype=torch.long)

    def tokens(self, problem: Problem) -> list[str]:
        """The prompt token by token, as text; the slots of a picture are one entry, with their number."""
        counts = [self.num_image_tokens(image) for image in problem.images]
        found: list[tuple[int, int]] = []
        for one in self.tokenize(problem, self.render(problem), counts).tolist():
            repeats = found and found[-1][0] == one == self.image_token_id
            found[-1:] = [(one, found[-1][1] + 1)] if repeats else [*found[-1:], (one, 1)]
        return [
            str(self.tokenizer.decode([one]))
            + (f" x {count}" if one == self.image_token_id else "")
            for one, count in found
        ]

    def prompt_length(self, problem: Problem) -> int:
        """Exact number of prompt tokens, without processing any image."""
        counts = [self.num_image_tokens(image) for image in problem.images]
        return int(self.tokenize(problem, self.render(problem), counts).shape[0])

    def identity(self) -> str:
        """Returns a hash of all that decides how long a prompt is beside its problem."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        parts = [
            transformers.__version__,
            type(self.tokenizer).__name__,
            backend.to_str() if backend else sorted(self.tokenizer.get_vocab().items()),
            self.tokenizer.chat_template,
            self.image_processor.to_json_string(),
            self.image_token_id,
        ]
        return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()

    def save_pretrained(self, folder: Path) -> None:
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)
