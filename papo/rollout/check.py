"""What is checked of an engine before there is a policy."""

from collections.abc import Callable
from functools import partial
from typing import Any


def preflight_engine(make_engine: Callable[..., Any]) -> None:
    """Has an engine say what it misses, if it can: its class then has a `preflight` that takes its settings.

    Args:
        make_engine: wants the policy only.

    Raises:
        ValueError: as the engine says.
    """
    if isinstance(make_engine, partial) and hasattr(make_engine.func, "preflight"):
        make_engine.func.preflight(make_engine.keywords)
