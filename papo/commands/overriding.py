"""The command line of this job: what it sets, and how another one is written."""

import json
import re
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf


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


def without(overrides: Iterable[str], *keys: str) -> list[str]:
    """Returns the overrides that set none of the keys."""
    return [text for text in overrides if text.lstrip("+").partition("=")[0] not in keys]


def shell_command(arguments: Iterable[str]) -> str:
    """Returns the line that starts this front door with other arguments."""
    return shlex.join([*_started_by(), *arguments])


def command_line(name: str, arguments: Iterable[str]) -> str:
    """Returns the line that starts another command, as this one was started."""
    first, program, *_ = _started_by()
    other = name if first == "papo" else str(Path(program).with_name(f"{name}.py"))
    return shlex.join([first, other, *arguments])


def _started_by() -> list[str]:
    """The words that started this command: of the package, or a file."""
    program = sys.argv[0]
    return program.split() if program.startswith("papo ") else ["python", program]


def quoted(name: str, value: Any) -> str:
    """Returns an override that Hydra reads back as it is: paths may hold commas and spaces."""
    if not isinstance(value, str | Path):
        return f"{name}={json.dumps(value)}"
    if re.fullmatch(r"(/|[A-Za-z_][\w.@-]*/)[\w/.@-]+", str(value), re.ASCII):
        return f"{name}={value}"
    # Within quotes a backslash speaks for itself, except before a quote.
    text = re.sub(r"(\\+)('|$)", r"\1\1\2", str(value)).replace("'", "\\'")
    return f"{name}='{text}'"
