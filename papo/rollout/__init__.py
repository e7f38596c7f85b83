"""Sampling responses: engines behind the RolloutEngine Protocol."""

from papo.rollout.check import (
    SERVER_KEYS,
    check_ahead,
    check_ahead_alone,
    check_greedy,
    check_importance_cap,
    check_samples_views,
    preflight_engine,
)
from papo.rollout.connection import ServerDiffers, ServerUnavailable
from papo.rollout.drawing import draw_tokens
from papo.rollout.sampler import SharedPrefillSampler, check_sampling, sampled_here
from papo.rollout.server import ServerRollouts
from papo.rollout.weight_source import WeightSource, run_name

__all__ = [
    "SERVER_KEYS",
    "ServerDiffers",
    "ServerRollouts",
    "ServerUnavailable",
    "SharedPrefillSampler",
    "WeightSource",
    "check_ahead",
    "check_ahead_alone",
    "check_greedy",
    "check_importance_cap",
    "check_samples_views",
    "check_sampling",
    "draw_tokens",
    "preflight_engine",
    "run_name",
    "sampled_here",
]
