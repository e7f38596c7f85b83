"""Policies: model families behind one adapter, loading, tiny random models, scoring."""

from papo.models.checkpoint_parts import text_family
from papo.models.checkpoint_weights import checkpoint_weights
from papo.models.families import FamilyAdapter, VisionFeatures
from papo.models.loading import (
    build_policy,
    check_model,
    load_encoder,
    load_policy,
)
from papo.models.meta_loading import meta_model
from papo.models.policy import VisionLanguagePolicy
from papo.models.prompt_encoder import PromptEncoder
from papo.models.tiny import build_byte_tokenizer, build_tiny_policy
from papo.models.vision_saliency import VisionTowerSaliency

__all__ = [
    "FamilyAdapter",
    "PromptEncoder",
    "VisionFeatures",
    "VisionLanguagePolicy",
    "VisionTowerSaliency",
    "build_byte_tokenizer",
    "build_policy",
    "build_tiny_policy",
    "check_model",
    "checkpoint_weights",
    "load_encoder",
    "load_policy",
    "meta_model",
    "text_family",
]
