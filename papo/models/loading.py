"""Loads a policy from a local folder or the hub, after checking that it is there and fits.

`check_model` is cheap (no weights are read, nothing is downloaded but a configuration) and says
what is missing before anything expensive; `load_policy` then loads. Whether it fits: papo.training.room.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import try_to_load_from_cache
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from papo.models.checkpoint_parts import check_parts
from papo.models.families import FamilyAdapter, family_of
from papo.models.lora import add_adapters, lora_parts
from papo.models.meta_loading import model_in_files
from papo.models.policy import VisionLanguagePolicy
from papo.models.prompt_encoder import PromptEncoder
from papo.models.weight_files import NotInRows, WeightFiles
from papo.storage.hub import check_hub_answers, fetch_model

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelCheck:
    """What `check_model` found.

    Attributes:
        location: the folder or hub id the model will be loaded from.
        config: of the model.
    """

    location: str
    config: PreTrainedConfig


def check_model(
    *, path: str | None, hub_id: str | None, revision: str | None, trust_remote_code: bool
) -> ModelCheck:
    """Says whether a model is there and can be read; reads its configuration only.

    Args:
        path: as of `load_policy`.
        hub_id: as of `load_policy`.
        revision: as of `load_policy`.
        trust_remote_code: as of `load_policy`.

    Raises:
        FileNotFoundError: neither the folder nor the hub has it, names both and the override; or the folder lacks its
            tokenizer or image processor.
        ValueError: as of `check_parts`.
    """
    location, config = _find_config(path, hub_id, revision, trust_remote_code)
    check_parts(config, location, None if path is None else Path(location))
    return ModelCheck(location=location, config=config)


def load_policy(
    *,
    path: str | None,
    hub_id: str | None,
    revision: str | None,
    dtype: Literal["float32", "bfloat16", "float16"],
    attn_implementation: str,
    min_pixels: int | None,
    max_pixels: int | None,
    gradient_checkpointing: bool | Literal["auto"],
    freeze_vision: bool,
    temperature: float,
    scoring: str,
    head_chunk_size: int,
    trust_remote_code: bool,
    lora: Mapping[str, Any] | None = None,
    thinking: bool | None = None,
    leave_in_files: bool = False,
    adapter: Callable[[PreTrainedModel], FamilyAdapter] | None = None,
) -> VisionLanguagePolicy:
    """Loads weights, tokenizer and image processor of a model.

    Args:
        path: a local Hugging Face folder; wins over `hub_id`.
        hub_id: a model id of the hub.
        revision: commit or tag on the hub; None for the default branch.
        dtype: of the weights. Train in float32 with autocast: bfloat16 weights lose updates of 1e-6.
        attn_implementation: as transformers names it, e.g. sdpa or flash_attention_2.
        min_pixels: images are enlarged to at least this many pixels; None keeps the processor's.
        max_pixels: images are shrunk to at most this many pixels; None keeps the processor's.
        gradient_checkpointing: see VisionLanguagePolicy.
        freeze_vision: leave the vision tower as it is.
        temperature: of the policy's distribution, `rollout.temperature`.
        scoring: see VisionLanguagePolicy.
        head_chunk_size: see VisionLanguagePolicy.
        trust_remote_code: run code that comes with the model. Off unless you trust its author.
        lora: see papo.models.lora.lora_parts; None trains all weights.
        thinking: see PromptEncoder.
        leave_in_files: load no weights, but say where they lie (`VisionLanguagePolicy.unread_weights`), for one
            who reads a part of each. Not where transformers alone can load them, which is logged.
        adapter: see VisionLanguagePolicy.

    Raises:
        ValueError: an impossible setting or type of weights; the vision tower both frozen and given adapters.
    """
    precision = getattr(torch, dtype, None)
    if not isinstance(precision, torch.dtype):
        raise ValueError(
            f"weights are of a type of PyTorch, e.g. float32; got model.dtype={dtype!r}"
        )
    location, config = _find_config(path, hub_id, revision, trust_remote_code)
    if path is None:
        fetch_model(location, revision=revision)
    source: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    if path is not None:
        source["revision"] = None
    settings = {**source, "dtype": precision, "attn_implementation": attn_implementation}
    model, files = _model(location, config, settings, leave_in_files)
    tokenizer = _tokenizer(location, **source)
    processor_class = family_of(config).pictures.processor_class
    image_processor = processor_class.from_pretrained(location, revision=source["revision"])
    policy = build_policy(
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
        thinking=thinking,
        adapter=adapter,
    )
    policy.unread_weights = files
    return policy


def _model(
    location: str, config: PreTrainedConfig, settings: dict[str, Any], leave_in_files: bool
) -> tuple[PreTrainedModel, WeightFiles | None]:
    if leave_in_files:
        try:
            return model_in_files(location, config, **settings)
        except NotInRows as reason:
            _logger.warning("%s is loaded whole by every process: %s", location, reason)
    return AutoModelForImageTextToText.from_pretrained(location, **settings), None


def build_policy(
    *,
    model: PreTrainedModel,
    tokenizer: Any,
    image_processor: Any,
    min_pixels: int | None,
    max_pixels: int | None,
    gradient_checkpointing: bool | Literal["auto"],
    freeze_vision: bool,
    temperature: float,
    scoring: str,
    head_chunk_size: int,
    lora: Mapping[str, Any] | None = None,
    thinking: bool | None = None,
    adapter: Callable[[PreTrainedModel], FamilyAdapter] | None = None,
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
    return VisionLanguagePolicy(
        model=model,
        encoder=_encoder(
            tokenizer, image_processor, model.config, min_pixels, max_pixels, thinking
        ),
        temperature=temperature,
        scoring=scoring,
        head_chunk_size=head_chunk_size,
        gradient_checkpointing=gradient_checkpointing,
        freeze_vision=freeze_vision,
        adapter=adapter,
    )


def load_encoder(
    *,
    path: str | None,
    hub_id: str | None,
    revision: str | None,
    min_pixels: int | None,
    max_pixels: int | None,
    trust_remote_code: bool,
    thinking: bool | None = None,
) -> PromptEncoder:
    """Loads what makes a model's prompts, and no weights; arguments as of `load_policy`.

    Raises:
        FileNotFoundError: neither the folder nor the hub has it.
    """
    location, config = _find_config(path, hub_id, revision, trust_remote_code)
    source: dict[str, Any] = {"revision": revision if path is None else None}
    tokenizer = _tokenizer(location, trust_remote_code=trust_remote_code, **source)
    processor = family_of(config).pictures.processor_class.from_pretrained(location, **source)
    return _encoder(tokenizer, processor, config, min_pixels, max_pixels, thinking)


def _tokenizer(location: str, **source: Any) -> Any:
    """The tokenizer that lies there.

    transformers takes a class by the model's family, whatever the file says. That of some families cuts text into
    bytes, in which a tokenizer of whole words has no word.
    """
    file = Path(location) / "tokenizer.json"
    if file.is_file() and json.loads(file.read_text("utf-8"))["model"]["type"] == "WordLevel":
        return PreTrainedTokenizerFast.from_pretrained(location, **source)
    return AutoTokenizer.from_pretrained(location, **source)


def _encoder(
    tokenizer: Any,
    image_processor: Any,
    config: PreTrainedConfig,
    min_pixels: int | None,
    max_pixels: int | None,
    thinking: bool | None,
) -> PromptEncoder:
    pictures = family_of(config).pictures(image_processor, tokenizer, config)
    pictures.limit(min_pixels=min_pixels, max_pixels=max_pixels)
    return PromptEncoder(tokenizer=tokenizer, family_pictures=pictures, thinking=thinking)


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
