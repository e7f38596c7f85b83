"""`papo COMMAND ...`, `python -m papo COMMAND ...`: which commands there are, and how each is started.

Ranks and evaluations that a command starts go this way too, wherever the command itself was started from. Nothing
here imports torch: a typing error costs a fraction of a second.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Command:
    """A command is the function `main` of papo.commands.NAME, where NAME has `_` for spaces.

    Attributes:
        does: in one line, for the list of commands.
        composes: reads conf/ with Hydra, or raises ValueError for a user's mistake; its errors are told in one line.
            Otherwise its `main` reads sys.argv and returns the exit code.
        on_ranks: may be one of several processes.
        path: what a path alone was probably meant as, of a command that takes overrides alone; help.py has its --help.
    """

    does: str
    composes: bool = False
    on_ranks: bool = False
    path: str = ""


COMMANDS = {
    "train": Command(
        "train a policy: PAPO, or what its configuration says", True, True, "run_dir={}"
    ),
    "evaluate": Command(
        "sample, grade and score a policy on benchmarks", True, True, "checkpoint={}"
    ),
    "analyze": Command(
        "say what wrong answers got wrong, and what training changed", True, path="runs=[{}]"
    ),
    "report": Command("one page about a training run, a sweep, or all that lies in a folder"),
    "export": Command("write a trained policy as a folder that Hugging Face loads"),
    "check data": Command("what is in your own data, and what training would see of it", True),
    "check grader": Command("graders against labelled answers"),
    "check method": Command("the methods that followed PAPO against their authors' numbers"),
    "check objective": Command("the official objective against recorded numbers"),
    "check run": Command("what each term did to the policy of a run, and when a collapse began"),
    "new experiment": Command("a folder to start from: a reward, a term, a test", True),
}
"""One line registers a command; one of two words is found by both."""

PACKAGE_FOLDER = Path(__file__).resolve().parents[2]


def words_of(name: str) -> list[str]:
    """The arguments with which Python runs a command."""
    return ["-m", "papo", *name.split()]


def variables() -> dict[str, str]:
    """What the environment of such a process says, so that it finds this package where it is not installed."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return {"PYTHONPATH": os.pathsep.join([str(PACKAGE_FOLDER), *filter(None, paths)])}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that is named first; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(listing())
        return 0
    found = next((name for name in COMMANDS if words[: len(name.split())] == name.split()), None)
    if found is None:
        print(f"error: no command {' '.join(words[:2])}\n\n{listing(words[0])}", file=sys.stderr)
        return 2
    # What is read below, and what messages call this command.
    sys.argv = [f"papo {found}", *words[len(found.split()) :]]
    return run(found)


def run(name: str) -> int:
    """Runs a command on the arguments of this process; returns the exit code."""
    command = COMMANDS[name]
    module = f"papo.commands.{name.replace(' ', '_')}"
    if not command.composes:
        return int(importlib.import_module(module).main())
    if command.path and {"-h", "--help"} & {*sys.argv[1:]}:
        print(importlib.import_module("papo.commands.help").help_of(name))
        return 0
    if command.path and (paths := bare_paths(sys.argv[1:])):
        meant = command.path.format(",".join(paths))
        print(f"error: an override is KEY=VALUE; got {paths[0]}. Was it {meant}?", file=sys.stderr)
        return 1
    front_door = importlib.import_module("papo.commands.front_door")
    return int(front_door.command(importlib.import_module(module).main, on_ranks=command.on_ranks))


def bare_paths(words: Sequence[str]) -> list[str]:
    """Words that are a path where Hydra reads KEY=VALUE; one after a flag may belong to it."""
    return [
        word
        for before, word in zip(["", *words], words, strict=False)
        if "=" not in word
        and word[:1] not in ("-", "~", "+")
        and ("/" in word or Path(word).exists())
        and not before.startswith("-")
    ]


def listing(first: str = "") -> str:
    """The commands, with a line each; only those that begin with `first`, if there are any.

    Args:
        first: the first word of a command.
    """
    chosen = {name: one for name, one in COMMANDS.items() if name.split()[0] == first} or COMMANDS
    lines = [f"  papo {name:16} {one.does}" for name, one in chosen.items()]
    return "\n".join(
        [
            "papo: Perception-Aware Policy Optimization. Usage: papo COMMAND ...",
            "",
            *lines,
            "",
            "papo COMMAND --help says what a command reads. In a clone, python train.py is papo train.",
        ]
    )
