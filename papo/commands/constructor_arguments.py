"""What a configuration hands to constructors: a wrong name, kind or value is told with its key.

Shared by the commands. Not here: what may be constructed at all (constructors.py).
"""

import inspect
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from hydra.errors import InstantiationException

from papo.commands.constructors import find_constructor
from papo.objective import SettingError

_NUMBERS = {int, float, bool}


def check_arguments(node: Any, key: str) -> None:
    """Compares the nodes in `node` with the signatures of their constructors; calls none.

    Args:
        node: plain values of the configuration.
        key: where it stands.

    Raises:
        ValueError: a constructor that no configuration may name, a name it does not have or lacks, text, a fraction or
            no number where it takes one; with the key.
    """
    if isinstance(node, Sequence) and not isinstance(node, str):
        for index, item in enumerate(node):
            check_arguments(item, f"{key}[{index}]")
    if not isinstance(node, Mapping):
        return
    for name, value in node.items():
        check_arguments(value, _joined(key, name))
    if "_target_" not in node:
        return
    target = str(node["_target_"])
    constructor = find_constructor(target)
    given = _arguments(node)
    parameters = _parameters(constructor)
    if parameters is None:
        return
    known = {name for name, one in parameters.items() if one.kind in _BY_NAME}
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    if not takes_any and (unknown := [name for name in given if name not in known]):
        raise ValueError(
            f"unknown key: {_joined(key, unknown[0])}; {target} takes {', '.join(sorted(known))}. Leave out "
            f"what the command adds, and with {' '.join(f'~{_joined(key, name)}' for name in unknown)} what "
            "conf/ sets."
        )
    needed = [name for name in known if parameters[name].default is inspect.Parameter.empty]
    if not node.get("_partial_") and (missing := sorted(set(needed) - set(given))):
        raise ValueError(f"{_joined(key, missing[0])} is not set; {target} needs it")
    kinds = _kinds(constructor)
    for name, value in given.items():
        _check_number(value, kinds.get(name), _joined(key, name))
        # papo's own say themselves where infinity means something.
        if isinstance(value, float) and math.isinf(value) and not target.startswith("papo."):
            raise ValueError(f"{_joined(key, name)} is a finite number; got {value}")


@contextmanager
def refusals_named(node: Mapping[str, Any], key: str) -> Iterator[None]:
    """Names the keys of what a constructor refuses.

    Errors of papo's own constructors say what to set, or are faults of papo: they pass as they are, and so does a
    SettingError of a user's own.

    Raises:
        ValueError: another project's constructor refused its arguments.
    """
    try:
        yield
    except Exception as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        cause = cause or error
        target = str(node.get("_target_", "papo."))
        if target.startswith("papo.") or isinstance(cause, SettingError):
            raise cause from None
        settings = ", ".join(
            f"{_joined(key, name)}={value}" for name, value in _arguments(node).items()
        )
        reason = " ".join(str(cause).split()) or type(cause).__name__
        raise ValueError(f"{target} refuses {settings or key or 'to be made'}: {reason}") from cause


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _arguments(node: Mapping[str, Any]) -> dict[str, Any]:
    """Without `_target_` and what else only Hydra reads."""
    return {name: value for name, value in node.items() if not name.startswith("_")}


def _parameters(constructor: Any) -> Mapping[str, inspect.Parameter] | None:
    try:
        return inspect.signature(constructor).parameters
    except (TypeError, ValueError):
        return None


def _kinds(constructor: Any) -> dict[str, Any]:
    """The annotations, where they can be read."""
    try:
        return typing.get_type_hints(
            constructor.__init__ if inspect.isclass(constructor) else constructor
        )
    except Exception:
        return {}


def _check_number(value: Any, kind: Any, key: str) -> None:
    if isinstance(value, list):
        of_items = [one for one in typing.get_args(kind) if one is not Ellipsis]
        for index, item in enumerate(value):
            if of_items:
                _check_number(item, of_items[min(index, len(of_items) - 1)], f"{key}[{index}]")
        return
    if isinstance(value, float) and math.isnan(value):
        raise ValueError(f"{key} is a number; got {value}")
    members = _members(kind)
    choices = {one for one in members if typing.get_origin(one) is typing.Literal}
    words = {word for one in choices for word in typing.get_args(one)}
    # A tensor may stand for a number, but not in a configuration.
    plain = members - choices - {type(None), torch.Tensor}
    if not plain or not plain <= _NUMBERS or not isinstance(value, str | int | float | None):
        return
    if plain == {bool}:
        named, fits = "true or false", isinstance(value, bool)
    elif float not in plain and bool not in plain:
        named, fits = "a whole number", isinstance(value, int) and not isinstance(value, bool)
    else:
        named = "a number"
        fits = isinstance(value, int | float) and (bool in plain or not isinstance(value, bool))
    if value is None:
        fits = type(None) in members
    if not fits and value not in words:
        raise ValueError(f"{key} is {' or '.join([named, *sorted(words)])}; got {value!r}")


def _members(kind: Any) -> set[Any]:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return {member for one in typing.get_args(kind) for member in _members(one)}
    return {kind} if kind is not None and kind is not Any else set()


def _joined(key: str, name: str) -> str:
    return f"{key}.{name}" if key else str(name)
