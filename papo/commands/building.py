"""Objects from the configuration: the one call of Hydra's instantiate, and what is checked around it."""

import importlib.util
import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from papo.commands.constructor_arguments import check_arguments, refusals_named
from papo.commands.constructors import CONF, check_targets, plain
from papo.objective import Credit, Objective, SettingError, Term

MAY_BE_INFINITE = ("training.max_grad_norm",)
"""The keys, also below the arm of a sweep, for which infinity is a setting: clipping is off."""


def instantiate(node: DictConfig, *, without: tuple[str, ...] = (), **arguments: Any) -> Any:
    """Constructs what a node of the configuration describes; the one call of Hydra's instantiate.

    Args:
        node: with a `_target_`; with `_partial_: true` the result still wants arguments.
        without: keys that are not the constructor's.
        arguments: for the constructor, where the node does not set them itself.

    Raises:
        ValueError: a `_target_` that no configuration may name (constructors.py), or arguments that it does not
            take.
        Exception: what a constructor of papo raised, not Hydra's wrapping of it.
    """
    key, values = key_of(node), plain(node)
    check_targets(values)
    arguments |= {name: value for name, value in values.items() if name not in without}
    with settings_named(node):
        check_arguments(arguments, key)
    with settings_named(node), refusals_named(arguments, key):
        return hydra.utils.instantiate(arguments, _convert_="all")


def instantiate_each(node: DictConfig, key: str, kind: type) -> dict[str, Any]:
    """Builds the objects of one kind that stand under `key` of `node`, by their names.

    Raises:
        ValueError: something else stands there.
    """
    built = {}
    for name, one in (node.get(key) or {}).items():
        built[name] = instantiate(one) if isinstance(one, DictConfig) else one
        if not isinstance(built[name], kind):
            raise ValueError(
                f"{key_of(node)}.{key}.{name} is built as a {kind.__module__}.{kind.__name__} by its _target_; "
                f"got {one}"
            )
    return built


def make_objective(config: DictConfig) -> Objective:
    """Builds the terms and credits of the loss, each by itself: what one refuses is told with its keys.

    Raises:
        ValueError: an impossible setting, or a key that nothing reads.
    """
    text = OmegaConf.to_yaml(config.objective)
    # A run's own configuration is resolved: nothing in it says who reads what.
    if read := set(re.findall(r"\$\{objective\.(\w+)", text)):
        _check_read(config.objective, set(config.objective) - read)
    terms = instantiate_each(config.objective, "terms", Term)
    credits = instantiate_each(config.objective, "credits", Credit)
    with settings_named(config.fidelity):
        return Objective(terms=terms, credits=credits, count_epsilon=config.fidelity.count_epsilon)


def _check_read(objective: DictConfig, unread: set[Any]) -> None:
    """Refuses keys of the objective that nothing ever reads, and a weight whose term is not there.

    Other shipped keys may have lost their reader: whoever sets a term's weight itself needs no gamma.
    """
    texts = [file.read_text("utf-8") for file in (CONF / "objective").rglob("*.yaml")]
    shipped = {key for text in texts for key in re.findall(r"(?m)^(\w+):", text)}
    if unknown := unread - shipped:
        raise ValueError(
            f"unknown key: objective.{min(unknown)}; no part of the objective reads it"
        )
    weighs = r"(?m)^  (\w+):\n    _target_: .*\n    weight: \$\{objective\.(\w+)\}"
    terms_of: dict[str, list[str]] = {}
    for term, key in (found for text in texts for found in re.findall(weighs, text)):
        terms_of.setdefault(key, []).append(term)
    for key in sorted(unread & terms_of.keys()):
        if objective[key] and not {*terms_of[key]} & {*(objective.get("terms") or ())}:
            named = " or ".join(sorted({*terms_of[key]}))
            raise ValueError(
                f"objective.{key}={objective[key]} is a weight, and there is no term {named} that it would be of: "
                "nothing would come of it. Leave it out, or choose an objective that has one"
            )


@contextmanager
def settings_named(node: DictConfig) -> Iterator[None]:
    """Puts the keys that the user sets into what papo says of its own settings.

    A value that a node takes from elsewhere (`${objective.gamma}`) is set there.

    Raises:
        ValueError: instead of a SettingError, with keys for names; or one that began with another key.
    """
    try:
        yield
    except ValueError as error:
        written = plain(node, resolve=False)
        here = {str(name): f"{key_of(node)}.{name}" for name in written}
        keys = {
            name: source[1]
            if (source := re.fullmatch(r"\$\{([\w.]+)\}", str(written[name])))
            else key
            for name, key in here.items()
        }
        if isinstance(error, SettingError):
            raise ValueError(error.with_keys(keys)) from None
        first, _, rest = str(error).partition(" ")
        for name, key in here.items():
            if first == key != keys[name]:
                raise ValueError(f"{keys[name]} {rest}") from None
        raise


def check_node(node: DictConfig) -> None:
    """Checks what `instantiate` will hand to a constructor that is called later.

    Raises:
        ValueError: as of `instantiate`.
    """
    values = plain(node)
    check_targets(values)
    check_arguments(values, key_of(node))


def key_of(node: DictConfig) -> str:
    """Returns where a node stands in the configuration, e.g. `callbacks.progress`."""
    return str(node._get_full_key(None))


def check_known_keys(config: DictConfig, known: Iterable[str]) -> None:
    """Refuses keys that nothing reads: a silently ignored setting is a bug.

    Raises:
        ValueError: an unknown key at the top level of the configuration, a number that is not finite, or
            anywhere in it a `_target_` that no configuration may name (constructors.py).
    """
    # As it was written: an interpolation would name the key that reads it, not the one to set.
    for key, value in _settings(plain(config, resolve=False)):
        if not _is_finite(value) and not (value == math.inf and key.endswith(MAY_BE_INFINITE)):
            raise ValueError(f"a setting is a finite number; got {value}. Set {key}.")
    check_targets(plain(config))
    if unknown := sorted(set(config) - set(known)):
        raise ValueError(
            f"unknown key {unknown[0]}; known: {', '.join(sorted(known))}. "
            "Was it meant for one of these groups?"
        )


def check_wandb(mode: str, *, key: str) -> None:
    """Says what is missing before anything is done that W&B could not log in the end.

    Args:
        mode: offline, online or disabled.
        key: where it is set.

    Raises:
        ValueError: another mode, or the package or a login is missing.
    """
    if mode not in ("disabled", "offline", "online"):
        raise ValueError(f"W&B runs offline, online or disabled; got {key}={mode!r}")
    if mode == "disabled":
        return
    if importlib.util.find_spec("wandb") is None:
        raise ValueError(
            f"{key}={mode} needs the package wandb: pip install wandb, or set {key}=disabled"
        )
    if mode == "online":
        import wandb

        try:
            logged_in = wandb.login(prompt=False)
        except (wandb.Error, ValueError) as error:
            raise ValueError(f"{key}=online: {error}. {key}=offline needs no account.") from error
        if not logged_in:
            raise ValueError(
                f"{key}=online needs an account: wandb login, or the variable WANDB_API_KEY. "
                f"{key}=offline needs none."
            )


def _settings(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every value with the key that sets it; the members of a list have the key of the list."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _settings(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for value in node:
            yield from _settings(value, key)
    else:
        yield key, node


def _is_finite(value: Any) -> bool:
    # The command line knows inf and nan; YAML's spelling arrives there as text.
    if isinstance(value, str):
        return value.lower().lstrip("+-") not in (".inf", ".nan")
    return not isinstance(value, float) or math.isfinite(value)
