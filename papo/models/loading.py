"""Loads a policy from a local folder or the hub, after checking that it is there and fits.

`check_model` is cheap (no weights are read, nothing is downloaded but a configuration) and says
what is missing before anything expensive; `load_policy` then loads.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import try_to_load_from_cache
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from papo.hub import check_hub_answers, fetch_model
from papo.models.adapter import SUPPORTED_FAMILIES
from papo.models.lora import add_adapters, lora_parts
from papo.models.policy import VisionLanguagePolicy
from papo.models.prompt_encoder import PromptEncoder

_GIB = 1024**3
# Weights, their gradient and the two moments of AdamW, all float32 master copies.
_TRAINING_BYTES_PER_PARAMETER = 16
_WEIGHT_BYTES_PER_PARAMETER = 4
# What shards are put together to.
_GATHERED_BYTES_PER_PARAMETER = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCheck:
    """What `check_model` found.

    Attributes:
        location: the folder or hub id the model will be loaded from.
        family: `model_type` of its configuration.
        num_parameters: of the whole model.
        required_bytes: estimate for training: weights, gradient, optimiser, and the reference copy.
        available_bytes: free memory of the device it will be trained on; None where unknown.
    """

    location: str
    family: str
    num_parameters: int
    required_bytes: int
    available_bytes: int | None


def check_model(
    *,
    path: str | None,
    hub_id: str | None,
    revision: str | None,
    with_reference: bool,
    trust_remote_code: bool,
    trains_all: bool = True,
    shards: int = 1,
) -> ModelCheck:
    """Says whether a model can be loaded and trained here; reads its configuration only.

    Args:
        path: as of `load_policy`.
        hub_id: as of `load_policy`.
        revision: as of `load_policy`.
        with_reference: a reference policy is needed.
        trust_remote_code: as of `load_policy`.
        trains_all: False with LoRA, where only the weights count: the adapters, their gradient and
            moments are small beside them, and the reference is the same weights.
        shards: devices that share one copy; more than 1 have all weights in half precision for rollouts.

    Raises:
        FileNotFoundError: neither the folder nor the hub has it; names both and the override.
        ValueError: no adapter for its family.
        MemoryError: it does not fit; names the estimate, what is free and what to set.
    """
    location, config = _find_config(path, hub_id, revision, trust_remote_code)
    if config.model_type not in SUPPORTED_FAMILIES:
        raise ValueError(
            f"no adapter for model family {config.model_type!r} of {location}; supported: "
            f"{', '.join(SUPPORTED_FAMILIES)}. Set model= or model.path= to one of these."
        )
    num_parameters = count_parameters(config)
    reference_bytes = 4 * num_parameters if with_reference else 0
    required = _TRAINING_BYTES_PER_PARAMETER * num_parameters + reference_bytes
    if not trains_all:
        required = _WEIGHT_BYTES_PER_PARAMETER * num_parameters
    if shards > 1:
        required = required // shards + _GATHERED_BYTES_PER_PARAMETER * num_parameters
    available = _available_bytes()
    if available is not None and required > available:
        needed = ["weights", *(["gradient", "AdamW"] if trains_all else [])]
        if with_reference and trains_all:
            needed.append("reference policy")
        several = "" if shards > 1 else "several (trainer=sharded), "
        adapters = "adapters (+model/lora=language), " if trains_all else ""
        raise MemoryError(
            f"{location} ({num_parameters / 1e9:.2f} B parameters) needs about "
            f"{required / _GIB:.0f} GiB ({', '.join(needed)}), and {available / _GIB:.0f} GiB are free. "
            f"Use a larger device, {several}{adapters}or a smaller model: model=tiny_qwen2_5_vl runs anywhere."
        )
    return ModelCheck(
        location=location,
        family=config.model_type,
        num_parameters=num_parameters,
        required_bytes=required,
        available_bytes=available,
    )


def load_policy(
    *,
    path: str | None,
    hub_id: str | None,
    revision: str | None,
    dtype: Literal["float32", "bfloat16", "float16"],
    attn_implementation: str,
    min_pixels: int | None,
    max_pixels: int | None,
    gradient_checkpointing: bool,
    freeze_vision: bool,
    temperature: float,
    scoring: str,
    head_chunk_size: int,
    trust_remote_code: bool,
    lora: Mapping[str, Any] | None = None,
) -> VisionLanguagePolicy:
    """Loads weights, tokenizer and image processor of a Qwen-VL model.

    Args:
        path: a local Hugging Face folder; wins over `hub_id`.
        hub_id: a model id of the hub.
        revision: commit or tag on the hub; None for the default branch.
        dtype: of the weights. Train in float32 with autocast: bfloat16 weights lose updates of 1e-6.
        attn_implementation: as transformers names it, e.g. sdpa or flash_attention_2.
        min_pixels: images are enlarged to at least this many pixels; None keeps the processor's.
        max_pixels: images are shrunk to at most this many pixels; None keeps the processor's.
        gradient_checkpointing: recompute activations in backward.
        freeze_vision: leave the vision tower as it is.
        temperature: of the policy's distribution, `rollout.temperature`.
        scoring: see VisionLanguagePolicy.
        head_chunk_size: see VisionLanguagePolicy.
        trust_remote_code: run code that comes with the model. Off unless you trust its author.
        lora: see papo.models.lora.lora_parts; None trains all weights.

    Raises:
        ValueError: an impossible setting or type of weights; the vision tower both frozen and given adapters.
    """
    precision = getattr(torch, dtype, None)
    if not isinstance(precision, torch.dtype):
        raise ValueError(
            f"weights are of a type of PyTorch, e.g. float32; got model.dtype={dtype!r}"
        )
    location, _ = _find_config(path, hub_id, revision, trust_remote_code)
    if path is None:
        fetch_model(location, revision=revision)
    source: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    if path is not None:
        source["revision"] = None
    model = AutoModelForImageTextToText.from_pretrained(
        location, dtype=precision, attn_implementation=attn_implementation, **source
    )
    tokenizer = AutoTokenizer.from_pretrained(location, **source)
    image_processor = Qwen2VLImageProcessorPil.from_pretrained(
        location, revision=source["revision"]
    )
    return build_policy(
        model=model,
        tokenizer=tokenizer,
        image_processor=image_processor,
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        gradient_checkpointing=gradient_checkpointing,
        freeze_vision=freeze_vision,
        temperature=temperature,
        scoring=scoring,
        head_chunk_size=head_chunk_size,
        lora=lora,
    )


def build_policy(
    *,
    model: PreTrainedModel,
    tokenizer: Any,
    image_processor: Qwen2VLImageProcessorPil,
    min_pixels: int | None,
    max_pixels: int | None,
    gradient_checkpointing: bool,
    freeze_vision: bool,
    temperature: float,
    scoring: str,
    head_chunk_size: int,
    lora: Mapping[str, Any] | None = None,
) -> VisionLanguagePolicy:
    """Assembles a policy from parts already in memory; arguments as of `load_policy`."""
    if lora is not None:
        parts = lora_parts(lora)
        if freeze_vision and "vision" in parts:
            raise ValueError(
                "a frozen vision tower has no adapters; got model.freeze_vision=true and "
                "model.lora.vision. Set one of them to false or null."
            )
        add_adapters(model, parts)
        freeze_vision = "vision" not in parts
    size = dict(image_processor.size)
    if min_pixels is not None:
        size["shortest_edge"] = min_pixels
    if max_pixels is not None:
        size["longest_edge"] = max_pixels
    image_processor.size = size
    return VisionLanguagePolicy(
        model=model,
        encoder=PromptEncoder(
            tokenizer=tokenizer,
            image_processor=image_processor,
            image_token=tokenizer.convert_ids_to_tokens(model.config.image_token_id),
        ),
        temperature=temperature,
        scoring=scoring,
        head_chunk_size=head_chunk_size,
        gradient_checkpointing=gradient_checkpointing,
        freeze_vision=freeze_vision,
    )


def count_parameters(config: PreTrainedConfig) -> int:
    """Number of parameters of the model a configuration describes; allocates nothing."""
    return sum(p.numel() for p in meta_model(config).parameters())


def meta_model(config: PreTrainedConfig) -> nn.Module:
    """The model on the meta device: every shape, no memory."""
    with torch.device("meta"):
        model: nn.Module = AutoModelForImageTextToText.from_config(config)
    return model


def _find_config(
    path: str | None, hub_id: str | None, revision: str | None, trust_remote_code: bool
) -> tuple[str, PreTrainedConfig]:
    if path is not None:
        folder = Path(path).expanduser()
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(
                f"model.path must be a Hugging Face folder with a config.json; got {path!r}"
            )
        return str(folder), AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    if hub_id is None:
        raise ValueError("a model needs a place to come from; set model.path= or model.hub_id=")
    if not isinstance(try_to_load_from_cache(hub_id, "config.json", revision=revision), str):
        check_hub_answers(
            hub_id,
            kind="model",
            revision=revision,
            remedy="Set model.path=FOLDER to a downloaded copy, or model=tiny_qwen2_5_vl for a random "
            "tiny model of the same architecture.",
        )
    config = AutoConfig.from_pretrained(
        hub_id, revision=revision, trust_remote_code=trust_remote_code
    )
    return hub_id, config


def _available_bytes() -> int | None:
    """Free memory of the GPU, since a run is one process on one device, or of the machine without one."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    try:
        with open("/proc/meminfo", encoding="utf-8") as lines:
            fields = dict(line.split(":", 1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
