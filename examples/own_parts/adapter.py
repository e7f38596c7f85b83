"""A model adapter of one's own: what is between the model and the policy, here what the vision tower says."""

from dataclasses import replace

from papo.models import VisionLanguagePolicy, build_tiny_policy
from papo.models.families import QwenVLAdapter


class RoundedVision(QwenVLAdapter):
    """Hands on the vision features in 16 bits; the gradient passes through."""

    def vision_features(self, patches, pictures):
        features = super().vision_features(patches, pictures)
        rounded = features.tokens.bfloat16().to(features.tokens.dtype)
        return replace(features, tokens=features.tokens + (rounded - features.tokens).detach())


def rounded_tiny_policy(**settings) -> VisionLanguagePolicy:
    """The tiny policy with this adapter; `papo.models.load_policy` takes one the same way."""
    return build_tiny_policy(**settings, adapter=RoundedVision)
