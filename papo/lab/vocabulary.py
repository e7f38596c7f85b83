"""The tiny model's tokenizer: one token per word, so one token per reading.

Numbers 0..99 are single tokens: what the model read in the picture is visible in one token's
probability.
"""

from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from papo.lab.scene import QUESTIONS
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

RESPONSE_WORDS = ("<think>", "</think>", "a", "b", "=", ",", "*", "+", "-", "|", "\\boxed{", "}")
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


def vocabulary() -> tuple[str, ...]:
    """Returns every token, its position its id: specials, roles, grammar, question words, numbers."""
    question_words = {
        word: None
        for question in QUESTIONS.values()
        for word in question.replace(IMAGE_MARKER, " ").split()
    }
    numbers = tuple(str(number) for number in range(LARGEST_NUMBER + 1))
    words = (*SPECIAL_TOKENS, *ROLES, *RESPONSE_WORDS, *question_words, *numbers)
    return tuple(dict.fromkeys(words))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Returns the word-level tokenizer with the chat template of the family; pads on the left."""
    words = vocabulary()
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


def write_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Writes tokenizer.json, tokenizer_config.json and chat_template.jinja; returns the tokenizer."""
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(folder)
    return tokenizer
