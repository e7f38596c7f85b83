"""What a run says at its start and at its end: where it is, what came of it, and which commands come next."""

import sys
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from papo.commands import overriding, resolvers
from papo.storage.files import write_atomically
from papo.training import BEST, RunFolder, read_best

# Without a terminal rich assumes 80 columns; the table at the end needs more.
_WIDTH = None if sys.stdout.isatty() else 120

console = Console(width=_WIDTH)
"""What a run says in its course. A job of a multirun says nothing there, unless it is asked for its progress."""

outcome = Console(width=_WIDTH)
"""What came of it; and warnings, which are wanted of a job, too."""

PAGE = "report.html"


def quieten(*, writes: bool, keys: Collection[str]) -> None:
    """Says who of a run speaks, and of what.

    Args:
        writes: it is rank 0, which speaks for all.
        keys: dotted, that the command line set.
    """
    asks = any(key.startswith("callbacks.progress") for key in keys)
    outcome.quiet = not writes
    console.quiet = not writes or (resolvers.multirun_name() is not None and not asks)


def say(text: str, to: Console = console) -> None:
    """Prints a sentence as it is: names of files may look like markup."""
    to.print(text, highlight=False, soft_wrap=True, markup=False)


def from_here(path: Path) -> Path:
    """A path as it is shortest from the working folder."""
    path = path.absolute()
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def write_page(folder: RunFolder) -> None:
    """Writes the page of a finished run; a page that cannot be made costs no run."""
    # Here, because it imports what draws.
    from papo.analysis.pages.run import build_run_page

    try:
        write_atomically(folder.path / PAGE, build_run_page(folder.path))
    except (OSError, ValueError) as error:
        say(f"{PAGE} was not written: {error}", outcome)


def show_end(folder: RunFolder) -> float:
    """Says what came of the run, where it is and what comes next; returns the reward of the last rollout."""
    metrics = folder.final_metrics()
    say(
        f"{metrics['rollout_step']:.0f} rollouts, {metrics['update_step']:.0f} updates; reward of the "
        f"last rollout {metrics['reward/mean']:.3f}. Everything is in {from_here(folder.path)}",
        outcome,
    )
    if resolvers.multirun_name() is None:
        for line in next_commands(folder):
            say(line, outcome)
    return metrics["reward/mean"]


def next_commands(folder: RunFolder) -> list[str]:
    """The commands that say more of a finished run, and the address of its page."""
    run, best = from_here(folder.path), None
    evaluated, analyzed = _benchmark_of(folder)
    with suppress(ValueError, OSError):
        best = read_best(folder.path)
    lines = []
    if best is not None:
        lines.append(
            f"best validation: {best.metric} {best.value:.3f} after rollout {best.rollout_step}, {run / BEST}"
        )
    checkpoint = run if best is None else run / BEST
    lines += [
        "next:",
        "  "
        + overriding.command_line(
            "evaluate", [overriding.quoted("checkpoint", checkpoint), *evaluated]
        ),
        "  " + overriding.command_line("analyze", [f"runs=[{checkpoint}]", *analyzed]),
    ]
    page = folder.path / PAGE
    if page.exists():
        lines.append(f"page: {page.absolute().as_uri()}")
    return lines


def _benchmark_of(folder: RunFolder) -> tuple[list[str], list[str]]:
    """What `evaluate` and `analyze` must be told of the problems; NAME where only the user knows."""
    trained_on: object = None
    with suppress(ValueError, OSError):
        trained_on = folder.settings().get("data")
    data = trained_on if isinstance(trained_on, dict) else {}
    if not str(data.get("_target_")).startswith("papo.lab."):
        return ["benchmark=NAME"], ["evaluate.benchmark=NAME"]
    shape = data.get("shape", "rectangle")
    return ([] if shape == "rectangle" else [f"benchmark=lab_{shape}"]), []
