"""The tiny model's tokenizer: one token per word, so one token per reading.

Numbers 0..99 are single tokens: what the model read in the picture is visible in one token's
probability.
"""

import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from papo.lab.grading import write_response
from papo.lab.shapes import RECTANGLE, Shape
from papo.types import IMAGE_MARKER

END_OF_TURN = "<|im_end|>"
PADDING = "<|endoftext|>"
UNKNOWN = "<|unknown|>"
SPECIAL_TOKENS = (
    PADDING,
    "<|im_start|>",
    END_OF_TURN,
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    UNKNOWN,
)
"""The names of the Qwen-VL family. An unregistered one would silently become an unknown word."""

ROLES = ("system", "user", "assistant")
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


def response_words(shape: Shape) -> tuple[str, ...]:
    """Returns the words of the grammar but the numbers, whether or not the shape's questions need them."""
    return ("<think>", "</think>", *shape.sides, "=", ",", "*", "+", "-", "|", "\\boxed{", "}")


def vocabulary(shape: Shape = RECTANGLE) -> tuple[str, ...]:
    """Returns every token, its position its id: specials, roles, grammar, question words, numbers."""
    question_words = {
        word: None
        for operation in shape.operations.values()
        for word in operation.question.replace(IMAGE_MARKER, " ").split()
    }
    numbers = tuple(str(number) for number in range(LARGEST_NUMBER + 1))
    words = (*SPECIAL_TOKENS, *ROLES, *response_words(shape), *question_words, *numbers)
    return tuple(dict.fromkeys(words))


def build_tokenizer(shape: Shape = RECTANGLE) -> PreTrainedTokenizerFast:
    """Returns the word-level tokenizer with the chat template of the family; pads on the left."""
    words = vocabulary(shape)
    word_level = models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN)
    backend = Tokenizer(word_level)
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token=UNKNOWN,
        eos_token=END_OF_TURN,
        pad_token=PADDING,
        padding_side="left",
        # The grader reads words set apart by spaces: do not glue commas to the word before.
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
        extra_special_tokens={
            "turn_start_token": "<|im_start|>",
            "vision_bos_token": "<|vision_start|>",
            "vision_eos_token": "<|vision_end|>",
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
        },
    )


def write_tokenizer(folder: Path, shape: Shape = RECTANGLE) -> PreTrainedTokenizerFast:
    """Writes tokenizer.json, tokenizer_config.json and chat_template.jinja; returns the tokenizer."""
    tokenizer = build_tokenizer(shape)
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
    if missing := [word for word in vocabulary(shape) if word not in model["vocab"]]:
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
