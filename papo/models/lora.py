"""LoRA (arXiv:2106.09685v2) through peft: small trainable matrices beside frozen weights.

The language model and the vision tower get adapters of their own rank. Switched off, the model is the
one the run began with, to the bit, so the reference policy needs no second copy.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

_FOLDERS = {"language": "model.language_model", "vision": "model.visual"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraPart:
    """Adapters of one part of the model.

    Attributes:
        r: rank of each adapter.
        alpha: an adapter's output is multiplied by alpha / r.
        targets: last name of the linear layers that get one, e.g. q_proj.

    Raises:
        ValueError: a rank below 1, or no targets.
    """

    r: int
    alpha: int
    targets: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.r < 1 or not self.targets:
            raise ValueError(
                "an adapter has a rank of at least 1 and at least one target; got "
                f"r={self.r}, targets={list(self.targets)}. Set model.lora."
            )


def lora_parts(settings: Mapping[str, Mapping[str, Any] | None]) -> dict[str, LoraPart]:
    """Reads `model.lora`: {language: {r, alpha, targets}, vision: the same}, either may be null.

    Raises:
        ValueError: another key, a missing one, or both parts null.
    """
    if unknown := sorted(set(settings) - set(_FOLDERS)):
        raise ValueError(f"model.lora has the keys {', '.join(_FOLDERS)}; got {unknown[0]!r}")
    parts = {}
    for name, part in settings.items():
        if part is None:
            continue
        if set(part) != {"r", "alpha", "targets"}:
            raise ValueError(
                f"model.lora.{name} has the keys r, alpha, targets; got {', '.join(sorted(part))}"
            )
        parts[name] = LoraPart(
            r=part["r"], alpha=part["alpha"], targets=tuple(str(each) for each in part["targets"])
        )
    if not parts:
        raise ValueError(
            "model.lora without adapters trains nothing; set model.lora.language or "
            "model.lora.vision, or model.lora=null to train all weights"
        )
    return parts


def add_adapters(model: PreTrainedModel, parts: Mapping[str, LoraPart]) -> None:
    """Adds the adapters in place and freezes everything else; the model computes what it did before.

    Dropout is 0: a policy is scored as it sampled. Adapters are float32 beside half-precision weights,
    which would round small updates away.

    Raises:
        ValueError: peft is not installed, or a target names no linear layer.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ValueError(
            "model.lora needs peft, which is not installed. Install it (pip install 'papo[lora]'), or "
            "set model.lora=null."
        ) from error
    for name, part in parts.items():
        _check_targets(model, name, part)
    first, *others = parts
    model.add_adapter(
        LoraConfig(
            r=parts[first].r,
            lora_alpha=parts[first].alpha,
            lora_dropout=0.0,
            target_modules="|".join(_pattern(name, part) for name, part in parts.items()),
            rank_pattern={_pattern(name, parts[name]): parts[name].r for name in others},
            alpha_pattern={_pattern(name, parts[name]): parts[name].alpha for name in others},
        )
    )
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()


def has_adapters(model: PreTrainedModel) -> bool:
    return bool(getattr(model, "_hf_peft_config_loaded", False))


@contextmanager
def adapters_off(model: PreTrainedModel) -> Iterator[None]:
    """Inside, the model is the one the adapters were added to; what is trainable stays as it was."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    model.disable_adapters()
    try:
        yield
    finally:
        model.enable_adapters()
        model.requires_grad_(False)
        for parameter in trainable:
            parameter.requires_grad_(True)


def merged_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A plain Hugging Face model with W + (alpha / r) B A in place of every adapted W."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    merged = deepcopy(model)
    for name, module in list(merged.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(merged.get_submodule(parent), child, module.get_base_layer())
    # What makes transformers save an adapter instead of a model.
    merged._hf_peft_config_loaded = False
    del merged.peft_config
    return merged


def _pattern(name: str, part: LoraPart) -> str:
    """Matches the full names of the target layers of one part, in the syntax of peft.

    The patch embedding is a convolution whose name ends like that of a linear layer.
    """
    targets = "|".join(map(re.escape, part.targets))
    return rf"{re.escape(_FOLDERS[name])}\.(?!patch_embed).*\.({targets})"


def _check_targets(model: PreTrainedModel, name: str, part: LoraPart) -> None:
    linear = {
        full.rpartition(".")[2]
        for full, module in model.get_submodule(_FOLDERS[name]).named_modules()
        if isinstance(module, nn.Linear)
    }
    if unknown := sorted(set(part.targets) - linear):
        raise ValueError(
            f"the {name} part has no linear layer named {unknown[0]!r}; it has "
            f"{', '.join(sorted(linear))}. Set model.lora.{name}.targets."
        )
