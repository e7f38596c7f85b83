"""How far an evaluation is and how long it will take: a bar on a terminal, else a line now and then."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 30.0

Advance = Callable[[str, int], None]
"""Called with what is being done and the number of problems that were finished."""


@contextmanager
def show_progress(console: Console, *, total: int, done: int) -> Iterator[Advance]:
    """Shows progress in problems while inside.

    Args:
        console: where to.
        total: problems of all benchmarks and views.
        done: of these, finished before this process began; they do not count towards the speed.
    """
    if console.is_terminal:
        with _bar(console, total, done) as advance:
            yield advance
    else:
        yield _lines(console, total, done)


@contextmanager
def _bar(console: Console, total: int, done: int) -> Iterator[Advance]:
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("problems, left"),
        # Speed over the last ten minutes: batches are few and long.
        TimeRemainingColumn(),
        console=console,
        speed_estimate_period=600,
    )
    with bar:
        task = bar.add_task("", total=total, completed=done)

        def advance(what: str, problems: int) -> None:
            bar.update(task, advance=problems, description=what)

        yield advance


def _lines(console: Console, total: int, done: int) -> Advance:
    began = last = time.monotonic()
    finished = done

    def advance(what: str, problems: int) -> None:
        nonlocal finished, last
        finished += problems
        now = time.monotonic()
        if now - last < SECONDS_BETWEEN_LINES and finished < total:
            return
        last = now
        left = (now - began) / max(1, finished - done) * (total - finished)
        console.print(
            f"{what}: {finished} of {total} problems, about {duration(left)} left",
            highlight=False,
            soft_wrap=True,
        )

    return advance


def duration(seconds: float) -> str:
    """Returns e.g. 45 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
