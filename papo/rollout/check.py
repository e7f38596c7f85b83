"""What is checked of an engine before there is a policy."""

from collections.abc import Callable
from functools import partial
from typing import Any

SERVER_KEYS = tuple(
    f"rollout.{name}"
    for name in (
        *("urls", "weights_folder", "part_bytes", "at_once"),
        *("timeout_seconds", "attempts", "pause_seconds"),
    )
)
"""Where servers are and how they are asked; what they write does not depend on it."""


def preflight_engine(make_engine: Callable[..., Any], *, longest_prompt: int = 1) -> None:
    """Has an engine say what it misses, if it can: its class then has a `preflight` that takes its settings.

    Args:
        make_engine: wants the policy only.
        longest_prompt: tokens of it, where that is known already.

    Raises:
        ValueError: as the engine says.
    """
    if isinstance(make_engine, partial) and hasattr(make_engine.func, "preflight"):
        make_engine.func.preflight(make_engine.keywords, longest_prompt=longest_prompt)


def check_importance_cap(
    importance_cap: float | None,
    make_engine: Callable[..., Any],
    *,
    top_p: float,
    top_k: int | None,
) -> None:
    """Refuses a correction for the engine where there is nothing to correct, or no ratio to correct it by.

    Raises:
        ValueError: the policy samples itself, or what an engine says of a token is not over the whole vocabulary.
    """
    if importance_cap is None:
        return
    engine = make_engine.func if isinstance(make_engine, partial) else make_engine
    if not getattr(engine, "has_own_logprobs", False):
        raise ValueError(
            f"objective.importance_cap={importance_cap} corrects for an engine that is not the policy itself, and here "
            "the policy samples. Set rollout=server, or objective.importance_cap=null."
        )
    if top_p < 1 or top_k is not None:
        raise ValueError(
            "a server's log-probabilities are those after top-p and top-k, over other tokens than the policy's, so "
            f"their ratio corrects nothing; got objective.importance_cap={importance_cap}, rollout.top_p={top_p} and "
            f"rollout.top_k={top_k}. Set rollout.top_p=1.0 and rollout.top_k=null, or objective.importance_cap=null."
        )
