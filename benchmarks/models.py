"""The random models and prompts that are measured.

Speed depends on shapes, not on what a model knows, so weights are random and nothing is downloaded.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from papo.models import VisionLanguagePolicy, build_policy
from papo.models.families.qwen_vl import QWEN2_5_VL, grid_thw
from papo.types import Problem, PromptGroup

VOCABULARY = 2048
CELL_PIXELS = 28
"""Side of the square of pixels that becomes one image token: 2 x 2 patches of 14 pixels."""

# No response may end early: then one would measure how long responses happen to be. The token that
# ends a turn is therefore one that neither side may sample.
_END_TOKEN = "<|vision_end|>"


def build_word_tokenizer(vocab_size: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """One token per word (w0, w1, ...), so that a prompt has exactly the length one asks for."""
    words = ["<unk>", "user", "assistant", *QWEN2_5_VL.special_tokens]
    words += [f"w{i}" for i in range(vocab_size - len(words))]
    backend = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        eos_token=_END_TOKEN,
        pad_token="<|endoftext|>",
        additional_special_tokens=[
            token
            for token in QWEN2_5_VL.special_tokens
            if token not in (_END_TOKEN, "<|endoftext|>")
        ],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = QWEN2_5_VL.chat_template
    return tokenizer


def step_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """The model of whole steps: language model 2 x 256, vision tower 3 x 128."""
    return _config(
        tokenizer,
        layers=2,
        vision={"depth": 3, "hidden_size": 128, "intermediate_size": 344, "num_heads": 4},
        full_attention_blocks=[1, 2],
    )


def calibrated_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """The model of scoring and rollout, with the proportions of Qwen2.5-VL-3B.

    The share of the vision tower decides what sharing is worth: one of 8 blocks attends fully (3B:
    4 of 32), and blocks hold 0.18 of the language model's parameters (3B: 0.23).
    """
    return _config(
        tokenizer,
        layers=4,
        vision={"depth": 8, "hidden_size": 96, "intermediate_size": 256, "num_heads": 4},
        full_attention_blocks=[7],
    )


def _config(
    tokenizer: PreTrainedTokenizerFast,
    *,
    layers: int,
    vision: dict[str, Any],
    full_attention_blocks: list[int],
) -> Qwen2_5_VLConfig:
    ids = tokenizer.get_vocab()
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "hidden_size": 256,
            "intermediate_size": 1376,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [8, 12, 12],
            },
        },
        vision_config={
            **vision,
            "out_hidden_size": 256,
            "patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": full_attention_blocks,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def build_model(
    config: Qwen2_5_VLConfig, tokenizer: PreTrainedTokenizerFast
) -> Qwen2_5_VLForConditionalGeneration:
    """The model with seeded random weights, float32, SDPA attention."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model.eval()


def build_image_processor() -> Qwen2VLImageProcessorPil:
    """Keeps pictures of up to 4,096 image tokens as they are."""
    processor = Qwen2VLImageProcessorPil(patch_size=14, temporal_patch_size=2, merge_size=2)
    processor.size = {"shortest_edge": CELL_PIXELS**2, "longest_edge": 4096 * CELL_PIXELS**2}
    return processor


def policy_of(
    model: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    *,
    scoring: str,
    gradient_checkpointing: bool = False,
    head_chunk_size: int = 1024,
    lora: Mapping[str, Any] | None = None,
) -> VisionLanguagePolicy:
    """A policy around `model`; several may share one model (without `lora`, which changes it)."""
    return build_policy(
        model=model,
        tokenizer=tokenizer,
        image_processor=build_image_processor(),
        min_pixels=None,
        max_pixels=None,
        gradient_checkpointing=gradient_checkpointing,
        freeze_vision=False,
        temperature=1.0,
        scoring=scoring,
        head_chunk_size=head_chunk_size,
        lora=lora,
    )


def picture(grid: tuple[int, int], seed: int) -> Image.Image:
    """Noise that becomes `grid` (rows, columns) patches."""
    rows, columns = grid
    shape = (rows * 14, columns * 14, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(pixels)


def question(num_words: int, seed: int) -> str:
    """Words w0 ... w999, drawn with a seed."""
    drawn = np.random.default_rng(seed).integers(0, 1000, num_words)
    return " ".join(f"w{i}" for i in drawn)


def problems(
    policy: VisionLanguagePolicy, *, grid: tuple[int, int], prompt_tokens: int, count: int
) -> list[Problem]:
    """Problems with one picture each whose prompts have exactly `prompt_tokens` tokens."""

    def build(num_words: int, index: int) -> Problem:
        return Problem(
            id=str(index),
            question=f"<image> {question(num_words, index)}",
            answer="w0",
            images=(picture(grid, index),),
            source="benchmark",
        )

    shortest = policy.prompt_length(build(1, 0))
    if prompt_tokens < shortest:
        raise ValueError(
            f"a picture of {grid[0]} x {grid[1]} patches takes at least {shortest} prompt tokens; "
            f"got prompt_tokens={prompt_tokens}"
        )
    return [build(1 + prompt_tokens - shortest, index) for index in range(count)]


def responses(
    num_rollouts: int, num_tokens: int, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random response tokens (none of them special) and their mask, all of full length."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(100, VOCABULARY, (num_rollouts, num_tokens), generator=generator)
    return ids, torch.ones_like(ids, dtype=torch.bool)


def plain_logprobs(
    model: Qwen2_5_VLForConditionalGeneration,
    group: PromptGroup,
    response_ids: torch.Tensor,
) -> torch.Tensor:
    """log p of the response tokens as trainers compute it: every row its own image and prompt.

    The public forward pass of the Hugging Face model on inputs repeated G times; the logits of the
    response positions only, then log_softmax. [rollout token]
    """
    num_responses, num_tokens = response_ids.shape
    assert group.patches is not None
    prompt = group.prompt_ids.to(response_ids.device).expand(num_responses, -1)
    input_ids = torch.cat([prompt, response_ids], dim=1)
    types = torch.zeros_like(input_ids)
    types[:, : prompt.shape[1]] = (prompt == model.config.image_token_id).long()
    logits = model(
        input_ids=input_ids,
        attention_mask=torch.ones_like(input_ids),
        mm_token_type_ids=types,
        pixel_values=group.patches.to(response_ids.device).repeat(num_responses, 1),
        image_grid_thw=grid_thw(group.pictures).to(response_ids.device).repeat(num_responses, 1),
        logits_to_keep=num_tokens + 1,
        use_cache=False,
    ).logits[:, :-1]
    logits[..., banned_token_ids(model)] = -torch.inf
    return logits.float().log_softmax(dim=-1).gather(2, response_ids[..., None])[..., 0]


def generate_plain(
    model: Qwen2_5_VLForConditionalGeneration,
    groups: Sequence[PromptGroup],
    num_responses: int,
    num_tokens: int,
    device: torch.device,
) -> torch.Tensor:
    """Sampled tokens of `generate` on inputs repeated G times, as trainers call it. [rollout token]

    The prompts must be of equal length.
    """

    def repeated(parts: Sequence[torch.Tensor | None]) -> torch.Tensor:
        return torch.cat([p for p in parts if p is not None for _ in range(num_responses)])

    ids = torch.stack([group.prompt_ids for group in groups])
    ids = ids.repeat_interleave(num_responses, dim=0).to(device)
    generated = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=(ids == model.config.image_token_id).long(),
        pixel_values=repeated([group.patches for group in groups]).to(device),
        image_grid_thw=repeated([grid_thw(group.pictures) for group in groups]).to(device),
        max_new_tokens=num_tokens,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        suppress_tokens=banned_token_ids(model),
    )
    return generated[:, ids.shape[1] :]


def banned_token_ids(model: Qwen2_5_VLForConditionalGeneration) -> list[int]:
    """Tokens a policy never writes (papo.models.policy): those that stand for vision input."""
    config = model.config
    return [
        config.image_token_id,
        config.video_token_id,
        config.vision_start_token_id,
        config.vision_end_token_id,
    ]


def save(folder: Path, model: Qwen2_5_VLForConditionalGeneration, tokenizer: Any) -> None:
    """Writes what other trainers load: weights, tokenizer, image processor."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    build_image_processor().save_pretrained(folder)
