"""A policy of a published architecture with random weights: shapes decide what a step costs, not what a model knows."""

import json
from inspect import signature
from typing import Any

import torch
from omegaconf import DictConfig
from transformers import (
    AutoModelForImageTextToText,
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
)

from benchmarks.models import build_image_processor, build_word_tokenizer, step_config
from benchmarks.step_model import CONFIGS
from papo.models import VisionLanguagePolicy, build_policy

ARCHITECTURES = {
    "Qwen/Qwen2.5-VL-3B-Instruct": "qwen2_5_vl_3b",
    "Qwen/Qwen2.5-VL-7B-Instruct": "qwen2_5_vl_7b",
}
TOY_VOCABULARY = 2048


def random_policy(node: DictConfig, device: torch.device, *, is_toy: bool) -> VisionLanguagePolicy:
    """The policy of a `model` node, as papo.models.load_policy makes it, but with random weights, made on the device.

    Raises:
        ValueError: its architecture is not shipped with the benchmarks.
    """
    tokenizer, config = architecture(node.hub_id, is_toy=is_toy)
    torch.manual_seed(0)
    with device:
        model = AutoModelForImageTextToText.from_config(
            config,
            dtype=getattr(torch, node.dtype),
            attn_implementation=node.attn_implementation,
        )
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    with torch.no_grad():
        # Random weights alone give flat distributions, which no trained model has.
        model.model.language_model.norm.weight.mul_(5.0)
    return assembled(node, model.eval(), tokenizer)


def assembled(node: DictConfig, model: Any, tokenizer: Any) -> VisionLanguagePolicy:
    """The policy around a model, with all settings of the node that say how."""
    known = set(signature(build_policy).parameters) - {"model", "tokenizer", "image_processor"}
    return build_policy(
        model=model,
        tokenizer=tokenizer,
        image_processor=build_image_processor(),
        **{name: node[name] for name in node if name in known},
    )


def architecture(hub_id: str, *, is_toy: bool) -> tuple[PreTrainedTokenizerFast, Qwen2_5_VLConfig]:
    """A word tokenizer of the model's vocabulary, and its configuration with that tokenizer's special tokens."""
    if is_toy:
        tokenizer = build_word_tokenizer(TOY_VOCABULARY)
        return tokenizer, step_config(tokenizer)
    if hub_id not in ARCHITECTURES:
        raise ValueError(
            f"architectures are shipped of {', '.join(ARCHITECTURES)}; got {hub_id}. Choose another --experiment."
        )
    content = json.loads((CONFIGS / f"{ARCHITECTURES[hub_id]}.json").read_text("utf-8"))
    config = Qwen2_5_VLConfig(**content)
    tokenizer = build_word_tokenizer(config.text_config.vocab_size)
    ids = tokenizer.get_vocab()
    for field in ("image", "video"):
        setattr(config, f"{field}_token_id", ids[f"<|{field}_pad|>"])
    for field in ("start", "end"):
        setattr(config, f"vision_{field}_token_id", ids[f"<|vision_{field}|>"])
    return tokenizer, config
