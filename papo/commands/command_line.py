"""`python -m papo COMMAND ...`: which commands there are, and how each is started.

Ranks and evaluations that a command starts go this way too, wherever the command itself was started from.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

ON_RANKS = {
    "train": True,
    "evaluate": True,
    "analyze": False,
    "check data": False,
    "new experiment": False,
}
"""The commands, and whether each may be one of several processes."""

PACKAGE_FOLDER = Path(__file__).resolve().parents[2]


def words_of(name: str) -> list[str]:
    """The arguments with which Python runs a command."""
    return ["-m", "papo", name]


def variables() -> dict[str, str]:
    """What the environment of such a process says, so that it finds this package where it is not installed."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return {"PYTHONPATH": os.pathsep.join([str(PACKAGE_FOLDER), *filter(None, paths)])}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that is named first; returns the exit code."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    if rest and f"{name} {rest[0]}" in ON_RANKS:
        name, *rest = f"{name} {rest[0]}", *rest[1:]
    if name not in ON_RANKS:
        print(f"error: a command is one of {', '.join(ON_RANKS)}; got {name!r}", file=sys.stderr)
        return 2
    # What Hydra reads, and what messages call this command.
    sys.argv = [f"papo {name}", *rest]
    return run(name)


def run(name: str) -> int:
    """Runs a command on the arguments of this process; returns the exit code."""
    front_door = importlib.import_module("papo.commands.front_door")
    door = importlib.import_module(f"papo.commands.{name.replace(' ', '_')}")
    return int(front_door.command(door.main, on_ranks=ON_RANKS[name]))
