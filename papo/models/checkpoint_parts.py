"""What of a checkpoint does not fit, said from its small files before a weight is read."""

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from papo.models.families import SUPPORTED_FAMILIES, Family, family_of
from papo.types import shown

_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
_TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json")


def check_parts(config: PreTrainedConfig, location: str, folder: Path | None) -> None:
    """Returns when a model is one that can be read and trained.

    Args:
        config: of the model.
        location: where it comes from, for people.
        folder: its files; None where they are not here yet.

    Raises:
        ValueError: an unknown family, or parts of a known one that nobody here knows; no vision tower; quantised
            weights; another image processor.
        FileNotFoundError: the folder has no tokenizer or image processor.
    """
    if getattr(config, "vision_config", None) is None:
        raise ValueError(
            f"{location} is a model of family {config.model_type!r} without a vision tower: it reads text alone. Set "
            f"model= or model.path= to a vision-language model; supported: {', '.join(SUPPORTED_FAMILIES)}."
        )
    family = family_of(config, named=location)
    quantised = getattr(config, "quantization_config", None)
    if quantised is not None:
        method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
        raise ValueError(
            f"{location} has quantised weights ({shown(method)}), which nothing here trains or scores with. Set "
            "model.path= or model.hub_id= to the checkpoint that it was made of; model.dtype=bfloat16 and model.lora "
            "save memory."
        )
    family.adapter.check(config)
    if folder is not None:
        _check_files(family, folder)


def text_family(folder: Path) -> str | None:
    """The family of a model in a folder that reads text alone; None where it reads pictures, or nothing says which.

    Args:
        folder: of a Hugging Face model; its config.json alone is read.
    """
    if not (folder / "config.json").is_file():
        return None
    content, _ = PreTrainedConfig.get_config_dict(folder, local_files_only=True)
    family = content.get("model_type")
    reads_pictures = family in SUPPORTED_FAMILIES or content.get("vision_config") is not None
    return None if family is None or reads_pictures else str(family)


def _check_files(family: Family, folder: Path) -> None:
    for kind, names in (("image processor", _PROCESSOR_FILES), ("tokenizer", _TOKENIZER_FILES)):
        if not any((folder / name).is_file() for name in names):
            raise FileNotFoundError(
                f"{folder} has no {kind} ({' or '.join(names)}): copy the files that came with the model there, or "
                "set model.path= to a whole checkpoint"
            )
    found = _processor_type(folder)
    known = family.pictures.processor_names
    if found is not None and found.removesuffix("Fast").removesuffix("Pil") not in known:
        raise ValueError(
            f"the image processor of {folder} is {shown(found)}, and models of this family are read with "
            f"{' or '.join(known)}; use the preprocessor_config.json that came with the model"
        )


def _processor_type(folder: Path) -> str | None:
    """What a checkpoint says that its image processor is; None where it says nothing."""
    for name in _PROCESSOR_FILES:
        if not (folder / name).is_file():
            continue
        content: Any = json.loads((folder / name).read_text("utf-8"))
        content = content.get("image_processor", content)
        if isinstance(found := content.get("image_processor_type"), str):
            return found
    return None
