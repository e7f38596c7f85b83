"""Sampling responses: engines behind the RolloutEngine Protocol."""

from papo.rollout.sampler import SharedPrefillSampler, check_sampling, draw_tokens

__all__ = ["SharedPrefillSampler", "check_sampling", "draw_tokens"]
