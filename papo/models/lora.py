"""LoRA (arXiv:2106.09685v2) through peft: small trainable matrices beside frozen weights.

The language model and the vision tower get adapters of their own rank. Switched off, the model is the
one the run began with, to the bit, so the reference policy needs no second copy.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from papo.models.families import model_parts

_PARTS = ("language", "vision")
_ADAPTER = "default"


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
    if unknown := sorted(set(settings) - set(_PARTS)):
        raise ValueError(f"model.lora has the keys {', '.join(_PARTS)}; got {unknown[0]!r}")
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
        ValueError: peft is not installed or does not fit transformers, or a target names no linear layer.
    """
    peft = _import_peft()
    patterns = {}
    for name, part in parts.items():
        folders = _folders(model, name)
        _check_targets(model, folders, name, part)
        patterns[name] = _pattern(folders, part)
    first, *others = parts
    config = peft.LoraConfig(
        r=parts[first].r,
        lora_alpha=parts[first].alpha,
        lora_dropout=0.0,
        base_model_name_or_path=model.name_or_path,
        target_modules="|".join(patterns.values()),
        rank_pattern={patterns[name]: parts[name].r for name in others},
        alpha_pattern={patterns[name]: parts[name].alpha for name in others},
    )
    with _stand_ins_for_unread_weights(model):
        # peft itself, not `model.add_adapter`: transformers 5.24 asks there for a peft nobody has released.
        peft.inject_adapter_in_model(config, model, adapter_name=_ADAPTER)
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()


@contextmanager
def _stand_ins_for_unread_weights(model: nn.Module) -> Iterator[None]:
    """Inside, weights on the meta device look as if they were on the CPU: adapters begin where their layer is."""
    unread = [
        (module, module.weight)
        for module in model.modules()
        if isinstance(module, nn.Linear) and module.weight.is_meta
    ]
    for module, weight in unread:
        one = torch.zeros((), dtype=weight.dtype).expand(weight.shape)
        module.weight = nn.Parameter(one, requires_grad=False)
    try:
        yield
    finally:
        for module, weight in unread:
            module.weight = weight.requires_grad_(False)


def has_adapters(model: PreTrainedModel) -> bool:
    """Whether `add_adapters` was called on it."""
    return getattr(model, "peft_config", None) is not None


@contextmanager
def adapters_off(model: PreTrainedModel) -> Iterator[None]:
    """Inside, the model is the one the adapters were added to; what is trainable stays as it is."""
    layers = [module for _, module in _adapted_layers(model)]
    # Not peft's `enable_adapters`, which also freezes and thaws parameters: those of a policy in shards are
    # others inside a pass than outside.
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


def merged_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A plain Hugging Face model with W + (alpha / r) B A in place of every adapted W."""
    merged = deepcopy(model)
    for name, module in _adapted_layers(merged):
        module.merge()
        parent, _, child = name.rpartition(".")
        setattr(merged.get_submodule(parent), child, module.get_base_layer())
    del merged.peft_config
    return merged


def merged_weight(layer: Any, whole: Callable[[Tensor], Tensor]) -> Tensor:
    """W + (alpha / r) B A of one adapted layer, which stays as it is.

    Args:
        layer: of peft, linear.
        whole: gives all of a weight that may be in shards.
    """
    base = whole(layer.get_base_layer().weight.detach())
    down, up = (whole(side[_ADAPTER].weight.detach()) for side in (layer.lora_A, layer.lora_B))
    # As peft merges: the sum is rounded once, to the precision of the weight.
    return (base + (up @ down) * layer.scaling[_ADAPTER]).to(base.dtype)


def save_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Writes the adapters alone, in the format of peft: adapter_config.json, adapter_model.safetensors."""
    from peft import get_peft_model_state_dict

    folder.mkdir(parents=True, exist_ok=True)
    weights = get_peft_model_state_dict(model, adapter_name=_ADAPTER, save_embedding_layers=False)
    save_file(
        # The names under which `PeftModel`, which wraps a model twice, would know them.
        {f"base_model.model.{name}": value.contiguous() for name, value in weights.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    model.peft_config[_ADAPTER].save_pretrained(str(folder))


def _import_peft() -> Any:
    """Raises ValueError, with what helps, where there is no peft or one that does not fit."""
    try:
        import peft
    except ModuleNotFoundError as error:
        if error.name != "peft":
            raise _misfit(error) from error
        raise ValueError(
            "model.lora needs peft, which is not installed. Install it (pip install 'papo[lora]'), or "
            "set model.lora=null."
        ) from error
    # A peft older than a change of transformers asks it for names that are gone.
    except (ImportError, AttributeError) as error:
        raise _misfit(error) from error
    return peft


def _misfit(error: Exception) -> ValueError:
    return ValueError(
        f"model.lora needs a peft that fits transformers; peft {version('peft')} does not fit "
        f"transformers {version('transformers')}: {error}. Install the pair of constraints/locked.txt "
        "(pip install --constraint constraints/locked.txt peft transformers), or set model.lora=null."
    )


def _adapted_layers(model: nn.Module) -> list[tuple[str, Any]]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [(n, m) for n, m in model.named_modules() if isinstance(m, BaseTunerLayer)]


def _folders(model: PreTrainedModel, name: str) -> tuple[str, ...]:
    """The names of the modules of one part."""
    parts = model_parts(model)
    return (parts.language,) if name == "language" else parts.vision


def _pattern(folders: Sequence[str], part: LoraPart) -> str:
    """Matches the full names of the target layers of one part, in the syntax of peft.

    The patch embedding is a convolution whose name ends like that of a linear layer.
    """
    targets = "|".join(map(re.escape, part.targets))
    inside = "|".join(map(re.escape, folders))
    return rf"({inside})\.(?!(.*\.)?patch_embed)(.*\.)?({targets})"


def _check_targets(
    model: PreTrainedModel, folders: Sequence[str], name: str, part: LoraPart
) -> None:
    linear = {
        full.rpartition(".")[2]
        for folder in folders
        for full, module in model.get_submodule(folder).named_modules()
        if isinstance(module, nn.Linear)
    }
    if unknown := sorted(set(part.targets) - linear):
        raise ValueError(
            f"the {name} part has no linear layer named {unknown[0]!r}; it has "
            f"{', '.join(sorted(linear))}. Set model.lora.{name}.targets."
        )
