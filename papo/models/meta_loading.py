"""A model of which only the shape is in memory, and the files that have its weights.

The parameters are on the meta device until someone reads their part of them; what is computed from the
configuration alone, as rotary frequencies, is there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from transformers import (
    AutoModelForImageTextToText,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from papo.models.families import model_parts
from papo.models.lora import add_adapters, lora_parts
from papo.models.weight_files import NotInRows, WeightFiles


def model_in_files(
    location: str,
    config: PreTrainedConfig,
    *,
    dtype: torch.dtype,
    attn_implementation: str,
    revision: str | None,
    trust_remote_code: bool,
) -> tuple[PreTrainedModel, WeightFiles]:
    """Returns the model that `from_pretrained` returns, without its weights, and where they lie.

    Args:
        location: a folder, or the id of a hub's model whose files are in the local cache.
        config: of the model; becomes its own.
        dtype: of the weights, whatever that of the files.
        attn_implementation: as transformers names it.
        revision: of the hub's model.
        trust_remote_code: code that comes with the model may be run.

    Raises:
        ValueError: as of WeightFiles.
        NotInRows: transformers alone can load this model.
    """
    if (reason := _why_whole(config, trust_remote_code)) is not None:
        raise NotInRows(reason)
    folder = _folder(location, revision)
    if (folder / "adapter_config.json").is_file():
        raise NotInRows("it holds adapters of another model")
    config.name_or_path = location
    model = meta_model(config, dtype=dtype, attn_implementation=attn_implementation)
    if dtype != torch.float32 and _keeps_some_in_float32(model):
        raise NotInRows(f"transformers keeps some of its weights in float32 beside {dtype}")
    compute_buffers(model)
    try:
        model.generation_config = GenerationConfig.from_pretrained(
            location, revision=revision or "main"
        )
    except OSError:
        # As transformers does where a folder has none.
        model.generation_config = GenerationConfig.from_pretrained(
            location,
            config_file_name="config.json",
            _from_model_config=True,
            revision=revision or "main",
        )
    return model.eval(), WeightFiles(model, folder)


def meta_model(
    config: PreTrainedConfig,
    *,
    dtype: torch.dtype | str = torch.float32,
    lora: Mapping[str, Any] | None = None,
    freeze_vision: bool = False,
    **settings: Any,
) -> PreTrainedModel:
    """The model on the meta device: every shape and what of it is trained, no memory.

    Args:
        config: of the model.
        dtype: of the weights, or its name.
        lora: as of `load_policy`.
        freeze_vision: the same.
        settings: for transformers.
    """
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForImageTextToText.from_config(
            config, dtype=getattr(torch, dtype) if isinstance(dtype, str) else dtype, **settings
        )
        parts = {} if lora is None else lora_parts(lora)
        if parts:
            add_adapters(model, parts)
    if not parts and freeze_vision:
        for module in model_parts(model).vision_modules(model):
            module.requires_grad_(False)
    return model


def compute_buffers(model: PreTrainedModel) -> None:
    """Gives a model on the meta device the buffers that no file has, as transformers computes them.

    Raises:
        NotInRows: there are others.
    """
    computed = dict(model.named_non_persistent_buffers())
    for name, module in model.named_modules():
        own = [key for key, buffer in module.named_buffers(recurse=False) if buffer.is_meta]
        for key in own:
            if f"{name}.{key}" not in computed:
                raise NotInRows(f"{name}.{key} is no weight and lies in a file")
            buffer = torch.empty_like(module.get_buffer(key), device="cpu")
            # What nobody fills is seen.
            setattr(module, key, buffer.fill_(torch.nan) if buffer.is_floating_point() else buffer)
        if own:
            model._init_weights(module)
        for key in own:
            if not bool(torch.isfinite(module.get_buffer(key)).all()):
                raise NotInRows(f"transformers computes {name}.{key} in a way of its own")


def _why_whole(config: PreTrainedConfig, trust_remote_code: bool) -> str | None:
    if trust_remote_code and getattr(config, "auto_map", None):
        return "it comes with code of its own"
    if getattr(config, "quantization_config", None) is not None:
        return "its weights are quantised"
    if getattr(config, "transformers_weights", None) is not None:
        return "its configuration names a file of weights"
    return None


def _folder(location: str, revision: str | None) -> Path:
    if Path(location).is_dir():
        return Path(location)
    config = try_to_load_from_cache(location, "config.json", revision=revision)
    if not isinstance(config, str):
        raise NotInRows("it is not in the local cache")
    return Path(config).parent


def _keeps_some_in_float32(model: PreTrainedModel) -> bool:
    return any(
        getattr(module, attribute, None)
        for module in model.modules()
        for attribute in ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict")
    )
