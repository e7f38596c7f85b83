"""Random tiny models of the real architectures, with a tokenizer that covers any text.

They run the same adapter, processor, masking and training code as the 3B model, on any machine.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from papo.models.families import FAMILIES, SUPPORTED_FAMILIES, Family, FamilyAdapter, TinySizes
from papo.models.loading import build_policy
from papo.models.policy import VisionLanguagePolicy


def build_byte_tokenizer(family: str) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer: one token per UTF-8 byte, plus the special tokens of a model family."""
    found = _family(family)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=found.end_token,
        pad_token=found.pad_token,
        clean_up_tokenization_spaces=False,
        **({"extra_special_tokens": dict(found.named_tokens)} if found.named_tokens else {}),
    )
    # Not among the arguments: named tokens would take the others' place.
    others = [each for each in found.special_tokens if each not in tokenizer.all_special_tokens]
    if others:
        tokenizer.add_special_tokens(
            {"additional_special_tokens": others}, replace_extra_special_tokens=False
        )
    tokenizer.chat_template = found.chat_template
    return tokenizer


def build_tiny_model(
    *, family: str, tokenizer: PreTrainedTokenizerFast, sizes: TinySizes, seed: int
) -> PreTrainedModel:
    """A randomly initialised model of a real architecture, float32; equal seeds, equal weights.

    Raises:
        ValueError: an unknown family, or a head dimension that is odd or below 8.
    """
    if sizes.head_channels * sizes.num_heads != sizes.hidden_size or (
        sizes.head_channels % 2 or sizes.head_channels < 8
    ):
        raise ValueError(
            "a head needs an even dimension of at least 8; got "
            f"hidden_size={sizes.hidden_size} over num_heads={sizes.num_heads}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _family(family).tiny_model(sizes, tokenizer)
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
    thinking: bool | None = None,
    adapter: Callable[[PreTrainedModel], FamilyAdapter] | None = None,
) -> VisionLanguagePolicy:
    """A random tiny policy that reads real images and real text; it knows nothing."""
    tokenizer = build_byte_tokenizer(family)
    sizes = TinySizes(
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=num_heads,
        num_key_value_heads=num_key_value_heads,
        intermediate_size=intermediate_size,
        vision_hidden_size=vision_hidden_size,
        vision_depth=vision_depth,
        vision_num_heads=vision_num_heads,
        initializer_range=initializer_range,
    )
    model = build_tiny_model(family=family, tokenizer=tokenizer, sizes=sizes, seed=seed)
    return build_policy(
        model=model,
        tokenizer=tokenizer,
        image_processor=_family(family).tiny_processor(model.config),
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        gradient_checkpointing=gradient_checkpointing,
        freeze_vision=freeze_vision,
        temperature=temperature,
        scoring=scoring,
        head_chunk_size=head_chunk_size,
        lora=lora,
        thinking=thinking,
        adapter=adapter,
    )


def _family(name: str) -> Family:
    if name not in FAMILIES:
        raise ValueError(
            f"family is one of {', '.join(SUPPORTED_FAMILIES)}; got {name!r}. Set model.family."
        )
    return FAMILIES[name]
