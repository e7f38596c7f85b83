"""The lab's model: a Qwen2.5-VL of about 0.35 M parameters as an ordinary Hugging Face folder.

The same architecture, processor files and tokens as the real model, only smaller: whatever loads
the 3B model from a folder loads this one.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from papo.lab.scene import IMAGE_SIZE
from papo.lab.shapes import RECTANGLE, Shape
from papo.lab.vocabulary import SHIPPED, Dialect, write_tokenizer

WARM_START = Path(__file__).parent / "warm_start"
"""The folder of the shipped warm start; its recipe.json holds the command that reproduces it."""


def lab_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """Returns the architecture: 2 + 2 layers of width 64, full attention, tied embeddings."""
    ids = tokenizer.get_vocab()
    head_dim = 16
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 192,
            "num_hidden_layers": 2,
            "num_attention_heads": 64 // head_dim,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "max_window_layers": 2,
            # The sections of time, height and width must add up to half a head.
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [2, 3, 3],
            },
            # At the usual 0.02 a model this narrow starts too close to zero to learn in minutes.
            "initializer_range": 0.05,
            "tie_word_embeddings": True,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "out_hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 4,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            # 16 patches: windows would hide them from one another.
            "fullatt_block_indexes": [0, 1],
            "initializer_range": 0.05,
        },
        tie_word_embeddings=True,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )


def lab_model(tokenizer: PreTrainedTokenizerFast) -> tuple[PreTrainedModel, Any]:
    """Returns the shipped model before it was trained, and its image processor."""
    pixels = IMAGE_SIZE * IMAGE_SIZE
    processor = Qwen2VLImageProcessorPil(
        size={"shortest_edge": pixels, "longest_edge": pixels},
        patch_size=14,
        merge_size=2,
        temporal_patch_size=2,
    )
    return Qwen2_5_VLForConditionalGeneration(lab_config(tokenizer)), processor


def save_untrained_model(
    folder: Path,
    *,
    seed: int,
    shape: Shape = RECTANGLE,
    make: Callable[[PreTrainedTokenizerFast], tuple[PreTrainedModel, Any]] = lab_model,
    dialect: Dialect = SHIPPED,
) -> None:
    """Writes a model with random weights and its whole processor into `folder`.

    Files: config.json, generation_config.json, model.safetensors, tokenizer.json,
    tokenizer_config.json, chat_template.jinja, preprocessor_config.json. It knows the words of
    `shape`. The weights depend on `seed` and the number of words alone; the global random state is left as it was.
    `make` gives a random model of another architecture, and its image processor; `dialect` is what that asks of a
    tokenizer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = write_tokenizer(folder, shape, dialect)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, processor = make(tokenizer)
    model.generation_config = GenerationConfig(
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, do_sample=True
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def weights_sha256(folder: Path) -> str:
    """Returns the SHA-256 of the folder's model.safetensors, as hexadecimal digits."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
