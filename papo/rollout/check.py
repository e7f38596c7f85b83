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


def check_greedy(make_engine: Callable[..., Any]) -> None:
    """Raises ValueError where an engine cannot take the most likely tokens instead of drawing."""
    if not hasattr(_class_of(make_engine), "greedy"):
        raise ValueError(
            f"{_class_of(make_engine).__name__} has no greedy(), an engine of the same policy that takes the most "
            "likely tokens. Set evaluation.greedy=false, or another rollout=."
        )


def check_ahead(ahead: object, make_engine: Callable[..., Any]) -> int:
    """Returns how many rollouts ahead of the updates responses are written.

    Raises:
        ValueError: neither 0 nor 1, or an engine that cannot.
    """
    if isinstance(ahead, bool) or ahead not in (0, 1):
        raise ValueError(
            "responses are written by the newest weights, or while the policy learns from the rollout before; got "
            f"rollout.ahead={ahead!r}. Set it to 0 or 1."
        )
    if ahead and not hasattr(engine := _class_of(make_engine), "begin"):
        raise ValueError(
            f"rollout.ahead={ahead} needs an engine that answers later; got {engine.__name__}. Set rollout=server, or "
            "rollout.ahead=0."
        )
    return int(ahead)


def check_ahead_alone(ahead: int, processes: int) -> None:
    """Refuses several processes, each of which would have answers of its own to wait for and to keep.

    Raises:
        ValueError: there are several.
    """
    if ahead and processes > 1:
        raise ValueError(
            f"rollout.ahead={ahead} is for a run of one process; got {processes}. Set rollout.ahead=0, or "
            "trainer.devices=1 and trainer.num_nodes=1."
        )


def _class_of(make_engine: Callable[..., Any]) -> Any:
    return make_engine.func if isinstance(make_engine, partial) else make_engine


def check_importance_cap(
    importance_cap: float | None,
    make_engine: Callable[..., Any],
    *,
    top_p: float,
    top_k: int | None,
    ahead: int,
    from_views: bool,
) -> None:
    """Refuses a correction for the engine where there is nothing to correct, or no ratio to correct it by.

    Args:
        importance_cap: of the ratio; None: no correction.
        make_engine: wants the policy only.
        top_p: of sampling.
        top_k: of sampling.
        ahead: rollouts that the responses are older than the policy.
        from_views: whether some are sampled from views of prompts: what the policy said there is corrected for.

    Raises:
        ValueError: the policy samples itself, or what an engine says of a token is not over the whole vocabulary.
    """
    if importance_cap is None:
        return
    if not (ahead or from_views) and not getattr(_class_of(make_engine), "has_own_logprobs", False):
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


def check_samples_views(make_engine: Callable[..., Any], *, ahead: int) -> None:
    """Refuses views of prompts for an engine that is asked about pictures by another road.

    Raises:
        ValueError: servers sample, or responses are written ahead, when views of their prompts are still to come.
    """
    if ahead:
        raise ValueError(
            "objective.sampled_from has the policy sample from views of prompts, which are made when a rollout is "
            f"collected; got rollout.ahead={ahead}. Set rollout.ahead=0."
        )
    if getattr(_class_of(make_engine), "has_own_logprobs", False):
        raise ValueError(
            "objective.sampled_from has the policy sample from views of prompts, and servers are asked about the "
            "pictures themselves; got rollout=server. Set rollout=shared_prefill or rollout=lab."
        )
