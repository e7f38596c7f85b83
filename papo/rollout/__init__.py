"""Sampling responses: engines behind the RolloutEngine Protocol."""

from papo.rollout.sampler import SharedPrefillSampler, draw_tokens

__all__ = ["SharedPrefillSampler", "draw_tokens"]
