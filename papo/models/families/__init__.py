"""The model families, each in a file of its own; `family_of` names the one of a configuration.

Not here: what all of them share, which is the rest of papo.models.
"""

from typing import Any

from papo.models.families.family import (
    Family,
    FamilyAdapter,
    ModelParts,
    TinySizes,
    VisionFeatures,
)
from papo.models.families.gemma3 import GEMMA3
from papo.models.families.gemma4 import GEMMA4
from papo.models.families.internvl import INTERNVL
from papo.models.families.pictures import FamilyPictures
from papo.models.families.qwen3_5 import QWEN3_5
from papo.models.families.qwen_vl import QWEN2_5_VL, QWEN3_VL, QwenVLAdapter
from papo.models.families.smolvlm import SMOLVLM

FAMILIES: dict[str, Family] = {
    "qwen2_5_vl": QWEN2_5_VL,
    "qwen3_vl": QWEN3_VL,
    "qwen3_5": QWEN3_5,
    "internvl": INTERNVL,
    "smolvlm": SMOLVLM,
    "gemma3": GEMMA3,
    "gemma4": GEMMA4,
}
"""By the `model_type` of their Hugging Face configurations."""

SUPPORTED_FAMILIES = tuple(FAMILIES)


def family_of(config: Any, *, named: str | None = None) -> Family:
    """Returns the family of a model's configuration.

    Args:
        config: of the model.
        named: where it comes from, for people.

    Raises:
        ValueError: no adapter for it.
    """
    if (found := FAMILIES.get(config.model_type)) is not None:
        return found
    raise ValueError(
        f"no adapter for model family {config.model_type!r}{f' of {named}' if named else ''}; supported: "
        f"{', '.join(SUPPORTED_FAMILIES)}. Set model= or model.path= to one of these, or add a family "
        "(docs/models.md)."
    )


def model_parts(model: Any) -> ModelParts:
    """Where the parts of a Hugging Face model are; of a family that is known."""
    return family_of(model.config).adapter.parts


__all__ = [
    "FAMILIES",
    "SUPPORTED_FAMILIES",
    "Family",
    "FamilyAdapter",
    "FamilyPictures",
    "ModelParts",
    "QwenVLAdapter",
    "TinySizes",
    "VisionFeatures",
    "family_of",
    "model_parts",
]
