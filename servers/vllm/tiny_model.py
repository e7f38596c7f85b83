"""Writes a random tiny model that vLLM serves on a CPU: python servers/vllm/tiny_model.py FOLDER"""

import argparse
from pathlib import Path

import torch
from torch import nn

from papo.models import VisionLanguagePolicy, build_tiny_policy


def tiny_policy(family: str, *, tied: bool) -> VisionLanguagePolicy:
    """A policy with heads of dimension 32, the least that vLLM's attention on a CPU takes."""
    policy = build_tiny_policy(
        family=family,
        hidden_size=64,
        num_layers=2,
        num_heads=2,
        num_key_value_heads=1,
        intermediate_size=128,
        vision_hidden_size=64,
        vision_depth=2,
        vision_num_heads=2,
        initializer_range=0.05,
        min_pixels=28 * 28,
        max_pixels=128 * 128,
        gradient_checkpointing=False,
        freeze_vision=False,
        temperature=1.0,
        scoring="split",
        head_chunk_size=64,
        seed=0,
    )
    if not tied:
        model = policy.model
        model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = False
        generator = torch.Generator().manual_seed(1)
        head = 0.1 * torch.randn(model.lm_head.weight.shape, generator=generator)
        model.lm_head.weight = nn.Parameter(head)
    return policy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--family", default="qwen2_5_vl", choices=("qwen2_5_vl", "qwen3_vl"))
    parser.add_argument("--untied", action="store_true", help="a head of its own")
    arguments = parser.parse_args()
    tiny_policy(arguments.family, tied=not arguments.untied).save_pretrained(arguments.folder)


if __name__ == "__main__":
    main()
