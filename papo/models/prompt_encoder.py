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

from papo.models.families import FamilyPictures
from papo.models.pixel_levels import PixelLevels
from papo.types import IMAGE_MARKER, PictureLayout, Problem, shown

# A chat template for reasoning models opens the thought in the prompt; graders want to see it.
# That of one who does not think closes it again.
_OPENED_THOUGHT = re.compile(r"<think>\s*(</think>\s*)?\Z")
_THINK_TAGS = ("<think>", "</think>")


class PromptEncoder:
    """Renders and tokenises prompts and turns pictures into patches.

    Args:
        tokenizer: with a chat template that writes one image token per image.
        family_pictures: what the model's family makes of pictures, and of their places in a prompt.
        thinking: whether the chat template opens a thought, for those that can do either; None: as it does
            unless told.

    Raises:
        ValueError: `thinking` for a template that does not ask.
    """

    def __init__(
        self,
        *,
        tokenizer: PreTrainedTokenizerBase,
        family_pictures: FamilyPictures,
        thinking: bool | None = None,
    ) -> None:
        if thinking is not None and "enable_thinking" not in str(tokenizer.chat_template):
            raise ValueError(
                f"the chat template of this model thinks or not, whatever it is told; got model.thinking={thinking}. "
                "Set model.thinking=null."
            )
        self.told: dict[str, Any] = {} if thinking is None else {"enable_thinking": thinking}
        self.tokenizer = tokenizer
        # Tags that are special tokens are left out where text is decoded; graders and format rules want to see them.
        ids = {tag: tokenizer.get_vocab().get(tag) for tag in _THINK_TAGS}
        self._unshown_tags = {
            i: tag for tag, i in ids.items() if i is not None and not self._decoded([i])
        }
        self.family_pictures = family_pictures
        self.image_processor = family_pictures.processor
        self.pixel_levels = PixelLevels(self.image_processor)
        self.image_token_id = family_pictures.image_token_id

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
            **self.told,
        )
        return str(rendered)

    def text_of(self, ids: Sequence[int]) -> str:
        """What the policy wrote: without special tokens, think tags excepted."""
        parts, start = [], 0
        for place, one in enumerate(ids):
            if one in self._unshown_tags:
                parts += [self._decoded(ids[start:place]), self._unshown_tags[one]]
                start = place + 1
        return "".join([*parts, self._decoded(ids[start:])])

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def response_prefix(self, rendered: str) -> str:
        """What the template already wrote of the response: `<think>` for reasoning models, an empty thought for
        those told not to think, or ''."""
        match = _OPENED_THOUGHT.search(rendered)
        return match.group() if match else ""

    def process_images(
        self, images: Sequence[Image.Image]
    ) -> tuple[Float[Tensor, "patch pixel"], tuple[PictureLayout, ...]]:
        """Normalised patches of all images, one after another, and how each image lies in them."""
        return self.family_pictures.process([image.convert("RGB") for image in images])

    def pictures(
        self,
        patches: Float[Tensor, "patch pixel"] | UInt8[Tensor, "patch pixel"],
        pictures: Sequence[PictureLayout],
    ) -> tuple[Image.Image, ...]:
        """What the vision tower sees, as pictures."""
        parts = self.pixel_levels.unpack(patches).split([each.num_patches for each in pictures])
        return tuple(map(self.family_pictures.shown, parts, pictures))

    def layouts(self, images: Sequence[Image.Image]) -> tuple[PictureLayout, ...]:
        """How pictures will lie, without processing them."""
        return tuple(self.family_pictures.layout(image.height, image.width) for image in images)

    def tokenize(
        self, problem: Problem, rendered: str, pictures: Sequence[PictureLayout]
    ) -> Int[Tensor, " prompt_token"]:
        """Token ids with each image token expanded to those of its image.

        Raises:
            ValueError: the text itself contains image tokens.
        """
        text, placeholder = (
            self.family_pictures.framed(rendered),
            self.family_pictures.placeholder_id,
        )
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if ids.count(placeholder) != len(pictures):
            raise ValueError(
                f"problem {shown(problem.id)!r} of {problem.source!r}: the prompt must hold one image token per "
                f"image; got {ids.count(placeholder)} for {len(pictures)} images. Either the "
                "question contains the text of the image token, or the chat template does not write it."
            )
        expansions = (self.family_pictures.prompt_ids(picture) for picture in pictures)
        expanded = [token for i in ids for token in (next(expansions) if i == placeholder else [i])]
        return torch.tensor(expanded, dtype=torch.long)

    def tokens(self, problem: Problem) -> list[str]:
        """The prompt token by token, as text; the slots of a picture are one entry, with their number."""
        found: list[tuple[int, int]] = []
        ids = self.tokenize(problem, self.render(problem), self.layouts(problem.images))
        for one in ids.tolist():
            repeats = found and found[-1][0] == one == self.image_token_id
            found[-1:] = [(one, found[-1][1] + 1)] if repeats else [*found[-1:], (one, 1)]
        return [
            str(self.tokenizer.decode([one]))
            + (f" x {count}" if one == self.image_token_id else "")
            for one, count in found
        ]

    def prompt_length(self, problem: Problem) -> int:
        """Exact number of prompt tokens, without processing any image."""
        pictures = self.layouts(problem.images)
        return int(self.tokenize(problem, self.render(problem), pictures).shape[0])

    def identity(self) -> str:
        """Returns a hash of all that decides how long a prompt is beside its problem."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        parts = [
            transformers.__version__,
            type(self.tokenizer).__name__,
            backend.to_str() if backend else sorted(self.tokenizer.get_vocab().items()),
            self.tokenizer.chat_template,
            *self.told.items(),
            self.image_processor.to_json_string(),
            self.image_token_id,
        ]
        return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()

    def save_pretrained(self, folder: Path) -> None:
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)
