"""Random tiny models of the real architectures, with a tokenizer that covers any text.

They run the same adapter, processor, masking and training code as the 3B model, on any machine.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from papo.models.adapter import QwenVLAdapter
from papo.models.loading import build_policy
from papo.models.policy import VisionLanguagePolicy

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The chat format of Qwen-VL, without its default system message."""


def build_byte_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer: one token per UTF-8 byte, plus the special tokens of Qwen-VL."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[
            token for token in SPECIAL_TOKENS if token not in ("<|im_end|>", "<|endoftext|>")
        ],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def build_tiny_model(
    *,
    family: str,
    tokenizer: PreTrainedTokenizerFast,
    hidden_size: int,
    num_layers: int,
    num_heads: int,
    num_key_value_heads: int,
    intermediate_size: int,
    vision_hidden_size: int,
    vision_depth: int,
    vision_num_heads: int,
    initializer_range: float,
    seed: int,
) -> PreTrainedModel:
    """A randomly initialised model of a real architecture, float32; equal seeds, equal weights.

    Raises:
        ValueError: an unknown family, or a head dimension that M-RoPE cannot split in three.
    """
    head_dim = hidden_size // num_heads
    if head_dim * num_heads != hidden_size or head_dim % 2 or head_dim < 8:
        raise ValueError(
            "a head needs an even dimension of at least 8; got "
            f"hidden_size={hidden_size} over num_heads={num_heads}"
        )
    half = head_dim // 2
    section = [half - 2 * (half * 3 // 8), half * 3 // 8, half * 3 // 8]
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "hidden_size": hidden_size,
        "intermediate_size": intermediate_size,
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_key_value_heads,
        "max_position_embeddings": 8192,
        "initializer_range": initializer_range,
        "tie_word_embeddings": True,
    }
    vision: dict[str, Any] = {
        "depth": vision_depth,
        "hidden_size": vision_hidden_size,
        "intermediate_size": 2 * vision_hidden_size,
        "num_heads": vision_num_heads,
        "out_hidden_size": hidden_size,
        "initializer_range": initializer_range,
    }

    token_ids = tokenizer.get_vocab()
    special: dict[str, Any] = {
        "image_token_id": token_ids["<|image_pad|>"],
        "video_token_id": token_ids["<|video_pad|>"],
        "vision_start_token_id": token_ids["<|vision_start|>"],
        "vision_end_token_id": token_ids["<|vision_end|>"],
        "tie_word_embeddings": True,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel
        if family == "qwen2_5_vl":
            rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": section}
            model = Qwen2_5_VLForConditionalGeneration(
                Qwen2_5_VLConfig(
                    text_config={**text, "rope_parameters": rope},
                    vision_config={
                        **vision,
                        "fullatt_block_indexes": list(range(vision_depth)),
                        "patch_size": 14,
                    },
                    **special,
                )
            )
        elif family == "qwen3_vl":
            rope = {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": section,
                "mrope_interleaved": True,
            }
            model = Qwen3VLForConditionalGeneration(
                Qwen3VLConfig(
                    text_config={**text, "head_dim": head_dim, "rope_parameters": rope},
                    vision_config={
                        **vision,
                        "patch_size": 16,
                        "num_position_embeddings": 256,
                        "deepstack_visual_indexes": list(range(min(vision_depth, num_layers))),
                    },
                    **special,
                )
            )
        else:
            raise ValueError(f"family is qwen2_5_vl or qwen3_vl; got {family!r}. Set model.family.")
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model.eval()


def build_tiny_policy(
    *,
    family: str,
    hidden_size: int,
    num_layers: int,
    num_heads: int,
    num_key_value_heads: int,
    intermediate_size: int,
    vision_hidden_size: int,
    vision_depth: int,
    vision_num_heads: int,
    initializer_range: float,
    min_pixels: int,
    max_pixels: int,
    gradient_checkpointing: bool | Literal["auto"],
    freeze_vision: bool,
    temperature: float,
    scoring: str,
    head_chunk_size: int,
    seed: int,
    lora: Mapping[str, Any] | None = None,
    adapter: Callable[[PreTrainedModel], QwenVLAdapter] = QwenVLAdapter,
) -> VisionLanguagePolicy:
    """A random tiny policy that reads real images and real text; it knows nothing."""
    tokenizer = build_byte_tokenizer()
    model = build_tiny_model(
        family=family,
        tokenizer=tokenizer,
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=num_heads,
        num_key_value_heads=num_key_value_heads,
        intermediate_size=intermediate_size,
        vision_hidden_size=vision_hidden_size,
        vision_depth=vision_depth,
        vision_num_heads=vision_num_heads,
        initializer_range=initializer_range,
        seed=seed,
    )
    vision_config = model.config.vision_config
    return build_policy(
        model=model,
        tokenizer=tokenizer,
        image_processor=Qwen2VLImageProcessorPil(
            patch_size=vision_config.patch_size,
            temporal_patch_size=vision_config.temporal_patch_size,
            merge_size=vision_config.spatial_merge_size,
        ),
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        gradient_checkpointing=gradient_checkpointing,
        freeze_vision=freeze_vision,
        temperature=temperature,
        scoring=scoring,
        head_chunk_size=head_chunk_size,
        lora=lora,
        adapter=adapter,
    )
