"""The tiny model's tokenizer: one token per word, so one token per reading.

Special tokens and chat template are those of a model family. Numbers 0..99 are single tokens: what
the model read in the picture is visible in one token's probability.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from papo.lab.grading import write_response
from papo.lab.shapes import RECTANGLE, Shape
from papo.types import IMAGE_MARKER

UNKNOWN = "<|unknown|>"
LARGEST_NUMBER = 99

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{ '<|im_start|> ' + message['role'] + '\\n' }}
{%- if message['content'] is string -%}
{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}
{{ '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif part['type'] == 'text' -%}
{{ part['text'] }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|> assistant\\n' }}
{%- endif -%}
"""
"""The layout of Qwen2.5-VL; a space after <|im_start|> keeps the role a word of its own."""

# The lab's responses open their thought themselves.
_OPENED_THOUGHT = re.compile(r"<think>\s*(</think>\s*)?")


@runtime_checkable
class Dialect(Protocol):
    """What a model family asks of a tokenizer; `papo.models.families.Family` says it of each.

    Attributes:
        special_tokens: that prompts are made of, in the order of their ids.
        named_tokens: of these, those that have a name of their own.
        end_token, pad_token: of these, what ends a turn and what pads.
        chat_template: of prompts.
    """

    @property
    def special_tokens(self) -> Sequence[str]: ...
    @property
    def named_tokens(self) -> Mapping[str, str]: ...
    @property
    def end_token(self) -> str: ...
    @property
    def pad_token(self) -> str: ...
    @property
    def chat_template(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shipped:
    """The dialect of the shipped warm start, whose files stay as they are."""

    special_tokens: Sequence[str] = (
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|image_pad|>",
        "<|video_pad|>",
    )
    named_tokens: Mapping[str, str] = field(
        default_factory=lambda: {
            "turn_start_token": "<|im_start|>",
            "vision_bos_token": "<|vision_start|>",
            "vision_eos_token": "<|vision_end|>",
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
        }
    )
    end_token: str = "<|im_end|>"
    pad_token: str = "<|endoftext|>"
    chat_template: str = CHAT_TEMPLATE


SHIPPED: Dialect = _Shipped()


def response_words(shape: Shape) -> tuple[str, ...]:
    """Returns the words of the grammar but the numbers, whether or not the shape's questions need them."""
    return ("<think>", "</think>", *shape.sides, "=", ",", "*", "+", "-", "|", "\\boxed{", "}")


def world_words(shape: Shape = RECTANGLE) -> tuple[str, ...]:
    """Returns the words of the shape's questions and responses: grammar, question words, numbers."""
    question_words = (
        word
        for operation in shape.operations.values()
        for word in operation.question.replace(IMAGE_MARKER, " ").split()
    )
    numbers = (str(number) for number in range(LARGEST_NUMBER + 1))
    return tuple(dict.fromkeys((*response_words(shape), *question_words, *numbers)))


def turn_words(dialect: Dialect) -> tuple[str, ...]:
    """Returns the words that a chat template writes itself: who speaks, for most."""
    text = {"type": "text", "text": ""}
    turns = [
        {"role": "system", "content": [text]},
        {"role": "user", "content": [{"type": "image"}, text]},
        {"role": "user", "content": [text]},
    ]
    renderer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({UNKNOWN: 0}, unk_token=UNKNOWN)),
        chat_template=_template(dialect),
    )
    rendered = str(
        renderer.apply_chat_template(cast(Any, turns), tokenize=False, add_generation_prompt=True)
    )
    for token in dialect.special_tokens:
        rendered = rendered.replace(token, " ")
    return tuple(dict.fromkeys(rendered.split()))


def _template(dialect: Dialect) -> str:
    return _OPENED_THOUGHT.sub("", dialect.chat_template)


def vocabulary(shape: Shape = RECTANGLE, dialect: Dialect = SHIPPED) -> tuple[str, ...]:
    """Returns every token, its position its id: specials, words of the chat template, words of the world."""
    specials = (*dialect.special_tokens, UNKNOWN)
    return tuple(dict.fromkeys((*specials, *turn_words(dialect), *world_words(shape))))


def build_tokenizer(
    shape: Shape = RECTANGLE, dialect: Dialect = SHIPPED
) -> PreTrainedTokenizerFast:
    """Returns the word-level tokenizer with the chat template of a family; pads on the left."""
    words = vocabulary(shape, dialect)
    word_level = models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN)
    backend = Tokenizer(word_level)
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    named = dict(dialect.named_tokens)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token=UNKNOWN,
        eos_token=dialect.end_token,
        pad_token=dialect.pad_token,
        padding_side="left",
        # The grader reads words set apart by spaces: do not glue commas to the word before.
        clean_up_tokenization_spaces=False,
        chat_template=_template(dialect),
        **({"extra_special_tokens": named} if named else {}),
    )
    # Not among the arguments: named tokens would take the others' place.
    others = [each for each in dialect.special_tokens if each not in tokenizer.all_special_tokens]
    if others:
        tokenizer.add_special_tokens(
            {"additional_special_tokens": others}, replace_extra_special_tokens=False
        )
    return tokenizer


def write_tokenizer(
    folder: Path, shape: Shape = RECTANGLE, dialect: Dialect = SHIPPED
) -> PreTrainedTokenizerFast:
    """Writes tokenizer.json, tokenizer_config.json and chat_template.jinja; returns the tokenizer."""
    tokenizer = build_tokenizer(shape, dialect)
    tokenizer.save_pretrained(folder)
    return tokenizer


def shortest_response(shape: Shape) -> int:
    """Returns the tokens of the shape's shortest right response, the end of turn included."""
    numbers = [2] * len(shape.sides)
    return 1 + min(len(write_response(name, *numbers).split()) for name in shape.operations)


def check_model_speaks(
    folder: str | Path,
    shape: Shape,
    *,
    key: str = "data.shape",
) -> None:
    """Refuses a model of whole words that lacks words of the shape's questions and answers.

    To it they would all be one unknown word, and training would go on with a reward of 0. A tokenizer
    that cuts words into pieces knows them all.

    Args:
        folder: of the model.
        shape: of the problems.
        key: the command's key of the shape.

    Raises:
        ValueError: names the missing words and the config keys.
    """
    file = Path(folder).expanduser() / "tokenizer.json"
    model = json.loads(file.read_text("utf-8"))["model"] if file.is_file() else {}
    if model.get("type") != "WordLevel":
        return
    if missing := [word for word in world_words(shape) if word not in model["vocab"]]:
        chooses = key == "benchmark.shape"
        remedy = (
            "choose benchmark=lab or benchmark=lab_quadrilateral"
            if chooses
            else f"set {key} to the model's"
        )
        raise ValueError(
            f"the model in {folder} was made for another world than {key}={shape.name}: it does "
            f"not know {', '.join(missing[:4])}. Set model.path to a warm start of this shape (python "
            f"scripts/warm_start_lab.py --output FOLDER --shape {shape.name}), or {remedy}."
        )
