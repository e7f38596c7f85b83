"""The table at the end of a multirun of `train`: a line for each job, from the files they left."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.markup import escape
from rich.table import Table

from papo.commands.front_door import FAILURE_FILE, at_the_end
from papo.commands.training.ending import from_here, outcome

_DEPTH = 3
"""Folders between that of the multirun and a job's: sweeps have one for the arm and one for the seed."""


class ShowJobs(Callback):
    """Prints what came of the jobs, however they ended; Hydra calls it in the process that the user started.

    Hydra calls nothing at the end where a job failed or a signal came, so the command itself is asked to.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        at_the_end(lambda: show_jobs(folder))


def show_jobs(folder: Path) -> None:
    """Prints the table of the jobs below a folder, if there are any."""
    if jobs := jobs_below(folder):
        outcome.print(jobs_table(folder, jobs))


def jobs_below(folder: Path) -> dict[str, Mapping[str, Any]]:
    """Returns what each job's result.json says, or why it failed before it was a run; by its folder."""
    found: dict[str, Mapping[str, Any]] = {}
    for depth in range(1, _DEPTH + 1):
        for name in ("result.json", FAILURE_FILE):
            for file in folder.glob("/".join([*["*"] * depth, name])):
                job = file.parent.relative_to(folder).as_posix()
                content = _read(file)
                if name == FAILURE_FILE:
                    content = {"status": "failed", **content}
                found[job] = content
    return dict(sorted(found.items(), key=lambda item: _in_order(item[0])))


def jobs_table(folder: Path, jobs: Mapping[str, Mapping[str, Any]]) -> Table:
    """Returns the table: how each job ended, its last reward, and what it is worth on held-out problems."""
    table = Table(title=f"jobs of {from_here(folder)}")
    sets = list(dict.fromkeys(name for job in jobs.values() for name in _after(job)))
    for column in ("job", "what it set", "status"):
        table.add_column(column, overflow="fold")
    for column in ("rollouts", "reward", *(f"{name}, accuracy in %" for name in sets)):
        table.add_column(column, justify="right")
    shared = set.intersection(*(set(_overrides(job)) for job in jobs.values()))
    for name, job in jobs.items():
        metrics, after = job.get("metrics") or {}, _after(job)
        own = [text for text in _overrides(job) if text not in shared or len(jobs) == 1]
        table.add_row(
            escape(name),
            escape(" ".join(own)),
            str(job.get("status", "unknown")),
            _number(metrics.get("rollout_step"), ".0f"),
            _number(metrics.get("reward/mean"), ".3f"),
            *(_number(after.get(one), ".1f") for one in sets),
        )
    return table


def _after(job: Mapping[str, Any]) -> dict[str, float]:
    """Accuracies after training, in per cent, by the name of the set."""
    evaluation = job.get("evaluation")
    after = evaluation.get("after") if isinstance(evaluation, dict) else None
    return {
        str(name): 100 * one["accuracy"]["value"]
        for name, one in (after if isinstance(after, dict) else {}).items()
    }


def _overrides(job: Mapping[str, Any]) -> list[str]:
    return [str(text) for text in job.get("overrides") or ()]


def _number(value: object, form: str) -> str:
    return format(value, form) if isinstance(value, int | float) else ""


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _in_order(name: str) -> tuple[tuple[int, str], ...]:
    """Jobs are numbered: 2 comes before 10."""
    return tuple((int(part), part) if part.isdecimal() else (-1, part) for part in name.split("/"))
