"""What train.py, evaluate.py and analyze.py share: the only code that knows Hydra."""

import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import CompactHydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from constructors import CONF, check_targets
from papo.files import write_atomically
from papo.lab import WARM_START

CONFIG_FOLDER = str(CONF)

MAY_BE_INFINITE = ("training.max_grad_norm",)
"""The keys, also below the arm of a sweep, for which infinity is a setting: clipping is off."""

# Mistakes of configuration and circumstance: one message says what to do, a traceback would hide it.
USER_ERRORS = (
    ValueError,
    FileNotFoundError,
    MemoryError,
    ArithmeticError,
    OSError,
    OmegaConfBaseException,
)

_failures: list[str] = []

FAILURE_FILE = "failure.json"
"""Says in the folder of a multirun's job why it failed, where it failed too early to be a run."""


class JobFailed(CompactHydraException):
    """A job of a multirun failed; every launcher then goes on, and the command ends with code 1."""


def experiment_name() -> str:
    """The chosen experiment, or `lab` where none was."""
    if not HydraConfig.initialized():
        return "lab"
    return str(HydraConfig.get().runtime.choices.get("experiment") or "lab")


def multirun_name() -> str | None:
    """The name of the folder that the jobs of a multirun share; None for a single run."""
    if not HydraConfig.initialized() or HydraConfig.get().mode is not RunMode.MULTIRUN:
        return None
    return Path(HydraConfig.get().sweep.dir).name


def makeable_folder(folder: str) -> str:
    """The folder; ends the command with one line where it is not there and cannot be made.

    Hydra makes it before anything of this project is asked, and would show a traceback.
    """
    path = Path(folder).absolute()
    there = next(one for one in (path, *path.parents) if one.exists())
    if there != path and not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        reason = "cannot be written to" if there.is_dir() else "is no folder"
        print(f"error: {path} cannot be made: {there} {reason}. Set run_dir=", file=sys.stderr)
        raise SystemExit(1)
    return folder


OmegaConf.register_new_resolver("makeable_folder", makeable_folder, replace=True)
OmegaConf.register_new_resolver("multirun_name", multirun_name, replace=True)
OmegaConf.register_new_resolver("experiment_name", experiment_name, replace=True)
OmegaConf.register_new_resolver("lab_warm_start", lambda: str(WARM_START), replace=True)


def instantiate(node: DictConfig, *, without: tuple[str, ...] = ()) -> Any:
    """Constructs what a node of the configuration describes; the one call of Hydra's instantiate.

    Args:
        node: with a `_target_`; with `_partial_: true` the result still wants arguments.
        without: keys that are not the constructor's.

    Raises:
        ValueError: a `_target_` that no configuration may name (constructors.py).
        Exception: what the constructor raised, not Hydra's wrapping of it.
    """
    plain = OmegaConf.to_container(node, resolve=True)
    check_targets(plain)
    try:
        return hydra.utils.instantiate(
            {key: value for key, value in plain.items() if key not in without}, _convert_="all"
        )
    except InstantiationException as error:
        if isinstance(error.__cause__, TypeError) and "unexpected keyword" in str(error.__cause__):
            raise ValueError(f"unknown key: {error.__cause__}") from error
        if error.__cause__ is not None:
            raise error.__cause__ from None
        raise


def check_known_keys(config: DictConfig, known: Iterable[str]) -> None:
    """Refuses keys that nothing reads: a silently ignored setting is a bug.

    Raises:
        ValueError: an unknown key at the top level of the configuration, a number that is not finite, or
            anywhere in it a `_target_` that no configuration may name (constructors.py).
    """
    # As it was written: an interpolation would name the key that reads it, not the one to set.
    for key, value in _settings(OmegaConf.to_container(config, resolve=False)):
        if not _is_finite(value) and not (value == math.inf and key.endswith(MAY_BE_INFINITE)):
            raise ValueError(f"a setting is a finite number; got {value}. Set {key}.")
    check_targets(OmegaConf.to_container(config, resolve=True))
    if unknown := sorted(set(config) - set(known)):
        raise ValueError(
            f"unknown key {unknown[0]}; known: {', '.join(sorted(known))}. "
            "Was it meant for one of these groups?"
        )


def apply_arm(config: DictConfig) -> None:
    """Writes the settings of the sweep's arm, `sweep.arms[sweep.arm]`, into the configuration.

    Arms of several settings cannot be written as Hydra's choices, and must win over the experiment's.

    Raises:
        ValueError: an arm of another name, one that sets a key nothing has, or one that would overrule
            the command line.
    """
    arms = OmegaConf.select(config, "sweep.arms") or {}
    if not arms:
        return
    if config.sweep.arm not in arms:
        raise ValueError(
            f"sweep.arm is one of {', '.join(map(str, arms))}; got {config.sweep.arm!r}"
        )
    settings = OmegaConf.to_container(arms[config.sweep.arm], resolve=True)
    assert isinstance(settings, dict)
    given = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    for override in map(str, given):
        if (name := override.lstrip("+").partition("=")[0]) in settings:
            raise ValueError(
                f"the arm {config.sweep.arm} sets {name} itself, so {override} would do nothing. Leave it "
                "out, or write a sweep of your own (docs/sweeps.md)."
            )
    for key, value in settings.items():
        group, _, name = str(key).rpartition(".")
        if name not in (OmegaConf.select(config, group) or {}):
            raise ValueError(f"the arm {config.sweep.arm} sets {key}, which no configuration has")
        OmegaConf.update(config, str(key), value)


def read_run_config(file: Path, *, given: Iterable[str]) -> dict[str, Any]:
    """Returns the configuration that came with a run folder, checked.

    Args:
        file: config.yaml of the folder.
        given: dotted keys that the command line sets itself; what the file says of them is left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or constructs what only the command line may ask for.
    """
    try:
        config = OmegaConf.load(file)
    except FileNotFoundError:
        raise FileNotFoundError(f"{file} is missing; restore it, or name every setting") from None
    except (yaml.YAMLError, ValueError, RecursionError, OmegaConfBaseException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{file} is damaged: {reason}. Restore it, or name every setting."
        ) from error
    if not isinstance(config, DictConfig):
        raise ValueError(f"{file} is damaged: it holds no settings. Restore it.")
    for key in given:
        delete(config, key)
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    _check_targets(plain)
    return {str(key): value for key, value in plain.items()}


def overridden_keys() -> list[tuple[str, bool]]:
    """What the command line of this job set: dotted keys, and whether it deleted them."""
    overrides = list(HydraConfig.get().overrides.task)
    return [
        (override.get_key_element().lstrip("+~"), override.is_delete())
        for override in OverridesParser.create().parse_overrides(overrides)
    ]


def delete(config: DictConfig, key: str) -> None:
    """Takes a key out of a configuration, where it is there."""
    group, _, name = key.rpartition(".")
    node = OmegaConf.select(config, group) if group else config
    if node is not None and name in node:
        del node[name]


def run_dir() -> Path:
    """The folder of this run; under --multirun, of this job."""
    return Path(HydraConfig.get().runtime.output_dir)


def clear_errors(task: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """Prints one message for a user's error and lets the other jobs of a multirun go on.

    HYDRA_FULL_ERROR=1 shows the traceback.
    """

    @wraps(task)
    def wrapped(config: DictConfig) -> Any:
        is_job = HydraConfig.get().mode is RunMode.MULTIRUN
        if is_job:
            (run_dir() / FAILURE_FILE).unlink(missing_ok=True)
        try:
            return task(config)
        except USER_ERRORS as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            message = str(error) or type(error).__name__
            print(f"error: {message}", file=sys.stderr)
            if is_job:
                _note_failure(message)
                # A job may run in another process, whose exit code is not the command's.
                raise JobFailed(message) from None
            _failures.append(message)
            return None

    return wrapped


def _note_failure(message: str) -> None:
    overrides = list(HydraConfig.get().overrides.task)
    # On a full disk the reason of the failure matters more than its record.
    with suppress(OSError):
        write_atomically(
            run_dir() / FAILURE_FILE,
            json.dumps({"error": message, "overrides": overrides}, indent=2),
        )


def exit_code() -> int:
    """1 where a job of this process failed, else 0."""
    return 1 if _failures else 0


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
