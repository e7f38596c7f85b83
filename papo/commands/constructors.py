"""What a configuration may construct; it depends on who wrote it.

The command line and conf/ are the user's own: they name what `papo` defines, classes of torch.optim,
lightning.pytorch and transformers, and what packages define that the command line allows (`allow=`). A
configuration that came with a folder may be a stranger's: it is read as data, and names what conf/ names, or
what the command line allows, and nothing else.
"""

import inspect
import re
import sys
from collections.abc import Collection, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

_PACKAGE = Path(__file__).resolve().parents[1]


def configuration_folder() -> Path:
    """conf/: in the package where it was installed from a wheel, beside it in a clone or an editable installation."""
    inside = _PACKAGE / "conf"
    return inside if inside.is_dir() else _PACKAGE.parent / "conf"


CONF = configuration_folder()

# Package -> where what it offers is defined: Lightning's loggers and plugins are partly Fabric's.
ALLOWED_PACKAGES = {
    "papo": "papo",
    "torch.optim": "torch.optim",
    "lightning.pytorch": "lightning",
    "transformers": "transformers",
}

# What is no package of the user's own: what runs anything it is told to, and what has a list above.
_NEVER_ALLOWED = frozenset(
    {
        *sys.stdlib_module_names,
        *sys.builtin_module_names,
        "hydra",
        "omegaconf",
    }
    | {package.partition(".")[0] for package in ALLOWED_PACKAGES}
)

_own_packages: list[str] = []

_MAX_CONFIG_BYTES = 1_000_000  # a resolved configuration has about 10,000
_MAX_DEPTH = 100  # one has about 6
_INTERPOLATION = "${"


def plain(node: Any, *, resolve: bool = True) -> Any:
    """Returns a node of a configuration as plain values.

    Args:
        node: OmegaConf's.
        resolve: without, interpolations stay as they were written.
    """
    return OmegaConf.to_container(node, resolve=resolve)


def allow_packages(names: Any) -> None:
    """Lets configurations name what these packages define, too; from now on, and no others than these.

    Args:
        names: packages of the user's own, as the command line of this process names them (`allow=`). Never what a
            folder's configuration says.

    Raises:
        ValueError: no list of names of packages, or one that is never a user's own.
    """
    if not isinstance(names, list | tuple) or not all(
        isinstance(name, str) and all(part.isidentifier() for part in name.split("."))
        for name in names
    ):
        raise ValueError(f"allow is a list of packages, allow=[my_package]; got {names!s:.200}")
    for name in names:
        if name.partition(".")[0] in _NEVER_ALLOWED:
            raise ValueError(
                f"allow names packages of your own; got {name}, which a configuration would run anything with. Write "
                "a class or function of yours that does what is meant, and allow its package."
            )
    _own_packages[:] = names


def check_targets(node: Any) -> None:
    """Checks what a configuration of the user's own constructs, nested objects included.

    Args:
        node: plain values, interpolations resolved.

    Raises:
        ValueError: a `_target_` that `find_constructor` refuses, or an interpolation that is left:
            it would be resolved once more while constructing, into what nobody checked.
    """
    for key, target in _nodes(node):
        if key.rpartition(".")[2] == "_target_":
            try:
                find_constructor(target)
            except ValueError as error:
                raise ValueError(f"{error}. It is {key}.") from error
    for key, value in _texts(node):
        if _INTERPOLATION in value:
            raise ValueError(f"{key} still has an interpolation after all are resolved: {value!r}")


def find_constructor(target: Any) -> Any:
    """Returns the class, or the function of `papo` or of a user's own package, that a `_target_` names.

    Each part of its path but the last is a module of the allowed package itself, and the last is
    defined there: `papo.training.checkpoints.torch.load` is no name of papo's.

    Raises:
        ValueError: it names anything else.
    """
    homes = {**ALLOWED_PACKAGES, **{name: name for name in _own_packages}}
    package = next(
        (one for one in homes if isinstance(target, str) and target.startswith(f"{one}.")), None
    )
    if package is None:
        raise _refusal(target, f"it is in none of {', '.join(homes)}")
    *inner, name = target.removeprefix(f"{package}.").split(".")
    if any(not part.isidentifier() or part.startswith("_") for part in (*inner, name)):
        raise _refusal(target, "a name in it is private, or is none")
    if package == "papo" and inner[:1] == ["commands"]:
        raise _refusal(target, "what a command does is no part of a run")
    try:
        module, path = import_module(package), package
        for part in inner:
            path = f"{path}.{part}"
            module = getattr(module, part, None) or import_module(path)
            if not isinstance(module, ModuleType) or module.__name__ != path:
                raise _refusal(target, f"{path} is no module of {package}")
        found = getattr(module, name)
    except (ImportError, AttributeError, RuntimeError) as error:
        raise _refusal(target, f"it cannot be imported ({error})") from error
    home = homes[package]
    if not f"{getattr(found, '__module__', '')}.".startswith(f"{home}."):
        raise _refusal(target, f"it is not defined in {home}")
    if not (
        inspect.isclass(found)
        or (package in ("papo", *_own_packages) and inspect.isfunction(found))
    ):
        raise _refusal(target, "it is no class")
    return found


@cache
def shipped_targets(group: str = ".") -> frozenset[str]:
    """The `_target_`s that files of conf/ name, but for what Hydra makes for the command itself: no run has that.

    Args:
        group: a folder of conf/; `.` is all of it.
    """
    return frozenset(
        target
        for file in (CONF / group).rglob("*.yaml")
        for line in file.read_text("utf-8").splitlines()
        for target in re.findall(r"_target_:\s*([\w.]+)", line.partition("#")[0])
        if not target.startswith("papo.commands.")
    )


def read_config(path: Path) -> dict[str, Any]:
    """Returns the configuration in a folder as plain values; nothing of it is resolved or run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not what a run writes, i.e. a mapping in YAML without interpolations.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; a run writes it when it starts")
    if path.stat().st_size > _MAX_CONFIG_BYTES:
        raise ValueError(f"{path} is no configuration of a run: it has more than 1 MB")
    try:
        text = path.read_text("utf-8")
        _check_events(yaml.parse(text))
        # OmegaConf's reading of numbers (1e-6), without its resolving of interpolations.
        config = plain(OmegaConf.create(text), resolve=False)
    except (ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        message = " ".join(str(error).split())
        raise ValueError(
            f"{path} cannot be read as the configuration of a run: {message}"
        ) from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} is no configuration of a run: it holds no mapping")
    for key, value in _texts(config):
        if _INTERPOLATION in value:
            raise ValueError(
                f"{path} is refused: {key} holds the interpolation {value[:80]!r}. A run writes its "
                "configuration resolved, and one that came with a folder may not read this machine."
            )
    return config


def read_run_config(
    path: Path, *, keys: Collection[str] | None = None, given: Collection[str] = ()
) -> dict[str, Any]:
    """Returns the configuration that came with a run, checked as a stranger's.

    Args:
        path: its config.yaml.
        keys: top-level keys that are wanted, each of which then names only what conf/KEY names; None
            wants all, which name what conf/ names.
        given: dotted keys that the command line sets itself. What the file says there is left out.

    Raises:
        FileNotFoundError, ValueError: as `read_config`; a wanted key is missing; the file names a
            constructor that conf/ does not, or wants to run code that comes with a model.
    """
    config = read_config(path)
    if keys is not None:
        if missing := sorted(set(keys) - set(config)):
            raise ValueError(f"{path} is no configuration of a run: it has no {missing[0]}")
        config = {key: config[key] for key in keys}
    for key in given:
        _leave_out(config, key)
    for key, node in config.items():
        shipped = shipped_targets() if keys is None else shipped_targets(key)
        for target in _targets(node):
            if isinstance(target, str) and (target in shipped or _is_own(target)):
                continue
            raise ValueError(
                f"{path} is refused: a configuration that came with a folder constructs only what "
                f"conf/ of this project names; got _target_: {target!r:.200}. If you trust it, say "
                f"so on the command line ({key}._target_=..., or allow=[PACKAGE] for a package of your own)."
            )
    for key, value in _nodes(config):
        name = key.rpartition(".")[2]
        runs_code = (name == "trust_remote_code" and value not in (False, None)) or (
            name == "attn_implementation" and "/" in str(value)  # a kernel of the hub
        )
        if runs_code:
            raise ValueError(
                f"{path} is refused: it has {key}: {value!s:.80}, which runs code that comes with a model. "
                f"If you trust its author, say so on the command line ({key}={value!s:.80})."
            )
    return config


def _check_events(events: Iterator[yaml.Event]) -> None:
    """Raises ValueError for a few lines of YAML that take more memory or time than there is."""
    depth = 0
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it has YAML aliases, which no run writes")
        if depth > _MAX_DEPTH:
            raise ValueError(f"it is nested more than {_MAX_DEPTH} levels deep")


def _is_own(target: str) -> bool:
    return any(target.startswith(f"{name}.") for name in _own_packages)


def _refusal(target: Any, reason: str) -> ValueError:
    allowed = ", ".join((*ALLOWED_PACKAGES, *_own_packages))
    return ValueError(
        f"a configuration constructs only what {allowed} themselves define; got _target_: {target!s:.200} ({reason}). "
        "A package of your own is named on the command line: allow=[my_package]"
    )


def _leave_out(config: Any, key: str) -> None:
    first, _, rest = key.partition(".")
    if isinstance(config, dict) and first in config:
        if rest:
            _leave_out(config[first], rest)
        else:
            del config[first]


def _targets(node: Any) -> Iterator[Any]:
    return (value for key, value in _nodes(node) if key.rpartition(".")[2] == "_target_")


def _texts(node: Any) -> Iterator[tuple[str, str]]:
    return ((key, value) for key, value in _nodes(node) if isinstance(value, str))


def _nodes(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yields everything below a node, containers too, with its dotted key."""
    yield key, node
    if isinstance(node, dict | list):
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _nodes(value, f"{key}.{name}" if key else str(name))
