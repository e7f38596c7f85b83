"""Tiny policies and problems that several rooms test with."""

import numpy as np
from PIL import Image

TINY = {
    "hidden_size": 64,
    "num_layers": 2,
    "num_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vision_hidden_size": 64,
    "vision_depth": 2,
    "vision_num_heads": 4,
    "initializer_range": 0.2,
    "min_pixels": 28 * 28,
    "max_pixels": 128 * 128,
    "gradient_checkpointing": False,
    "freeze_vision": False,
    "temperature": 1.0,
    "scoring": "split",
    "head_chunk_size": 16,
    "seed": 0,
}


def tiny_policy(family="qwen2_5_vl", **overrides):
    from papo.models import build_tiny_policy

    # Wide weights of states amplify the rounding of float32 beyond what tests allow.
    width = {"initializer_range": 0.1} if family == "qwen3_5" else {}
    return build_tiny_policy(family=family, **{**TINY, **width, **overrides})


def noise_image(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def problem(question="<image>What?", images=None, answer="1", id="p"):
    from papo.types import Problem

    if images is None:
        images = (noise_image(60, 90),)
    return Problem(id=id, question=question, answer=answer, images=images, source="test")


def mixed_problems():
    """One image, no image, two images of different size; questions of different length."""
    return [
        problem(id="one"),
        problem("no image at all", images=(), id="text"),
        problem(
            "<image> and <image>: which is longer? Ω",
            images=(noise_image(60, 60, 1), noise_image(100, 30, 2)),
            id="two",
        ),
    ]


def with_noise_as_masked_view(groups):
    """Groups whose masked patches are the processed patches with every other one set to -1."""
    from dataclasses import replace

    masked = []
    for group in groups:
        if group.patches is not None:
            patches = group.patches.clone()
            patches[::2] = -1.0
            group = replace(group, views={"masked": (replace(group, patches=patches),)})
        masked.append(group)
    return tuple(masked)


def saved_model(folder, family="qwen2_5_vl", *, tied=True, several=False, new_names=False, **sizes):
    """Writes a folder as Hugging Face has them; returns it.

    Args:
        folder: to be made.
        family: as of `tiny_policy`.
        tied: the head is the embedding.
        several: the weights lie in several files, beside an index.
        new_names: keys are the model's own, not those that Qwen2.5-VL was published with, as transformers writes.
        **sizes: as of `tiny_policy`.
    """
    import torch
    from safetensors.torch import save_file

    policy = tiny_policy(family, **sizes)
    model = policy.model
    if not tied:
        config = model.config
        config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
        torch.manual_seed(1)
        generation, policy.model = model.generation_config, type(model)(config)
        policy.model.generation_config = generation
    policy.save_pretrained(folder)
    if several:
        (folder / "model.safetensors").unlink()
        policy.model.save_pretrained(folder, max_shard_size="100KB")
    if new_names:
        weights = {name: weight.clone() for name, weight in policy.model.state_dict().items()}
        if tied:
            del weights["lm_head.weight"]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
