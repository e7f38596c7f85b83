"""What lies in a folder of runs: training runs, evaluations, error analyses and sweeps, from their files alone.

What cannot be read is an entry too, with the reason; nothing in a folder can stop the list.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from papo.reporting.numbers import finite
from papo.statistics import Collapse, judge_collapse
from papo.storage.files import read_object
from papo.storage.tables import read_readable

_REMEDY = "It was left out."
_SKIPPED = frozenset({"checkpoints", "rollouts", "images", "best"})
MAX_FOLDERS = 20_000
"""Looked into; a folder that holds more is no folder of runs."""

PAGES = ("report.html", "responses.html", "attention.html", "label_page.html")
"""What other commands leave beside a run, in the order in which they are linked."""

Accuracy = tuple[float, float | None, float | None]
"""A share, and the ends of its interval where it has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One folder that a command wrote.

    Attributes:
        folder: relative to the folder of the list, with "/".
        kind: "run", "evaluation", "analysis", "sweep" or "unreadable".
        state: finished, failed, interrupted, or unfinished with how far it is.
        what: the command's overrides or what was evaluated, or why the folder cannot be read.
        started: as run.json says; empty where it does not.
        accuracies: held-out set -> accuracy.
        reward: mean of the last tenth of the rollouts; None where there is none.
        collapse: the verdict; None for what is no training.
        pages: addresses of its pages, relative to the folder of the list.
        sweep: folder of the sweep that it is a job of; empty otherwise.
    """

    folder: str
    kind: str
    state: str = ""
    what: str = ""
    started: str = ""
    accuracies: Mapping[str, Accuracy] = field(default_factory=dict)
    reward: float | None = None
    collapse: Collapse | None = None
    pages: tuple[str, ...] = ()
    sweep: str = ""


def find_entries(root: Path) -> list[Entry]:
    """Returns what lies below a folder, by path.

    Folders that hold nothing of papo are entries where nothing below them is papo's either.

    Raises:
        ValueError: the folder does not exist, or holds too many folders.
    """
    if not root.is_dir():
        raise ValueError(f"there is no folder {root}")
    entries: list[Entry] = []
    sweeps: list[str] = []
    for number, (path, files) in enumerate(_folders(root)):
        if number >= MAX_FOLDERS:
            raise ValueError(
                f"{root} holds more than {MAX_FOLDERS:,} folders; name one of them, of runs"
            )
        folder = path.relative_to(root).as_posix()
        sweep = next((one for one in sweeps if _is_below(folder, one)), "")
        if "multirun.yaml" in files or {"report.csv", "runs.csv"} <= files:
            sweeps.append(folder)
            entries.append(Entry(folder=folder, kind="sweep", pages=_pages(folder, files)))
        if "run.json" in files:
            entries.append(_entry(path, folder, files, sweep))
    return sorted([*entries, *_foreign(root, entries)], key=lambda one: (one.kind, one.folder))


def _folders(root: Path) -> Iterator[tuple[Path, frozenset[str]]]:
    """The folders below one, without links, hidden ones and those that a run fills itself."""
    for path, names, files in os.walk(root, followlinks=False):
        names[:] = sorted(name for name in names if name not in _SKIPPED and name[:1] != ".")
        yield Path(path), frozenset(files)


def _entry(path: Path, folder: str, files: frozenset[str], sweep: str) -> Entry:
    pages = _pages(folder, files)
    try:
        facts = read_object(path / "run.json", remedy=_REMEDY)
        result = read_object(path / "result.json", remedy=_REMEDY) if "result.json" in files else {}
        common: dict[str, Any] = {
            "folder": folder,
            "state": _state(result),
            "started": str(facts.get("started", ""))[:16].replace("T", " "),
            "pages": pages,
            "sweep": sweep,
        }
        if "checkpoint" in facts or "responses.jsonl" in files:
            return Entry(kind="evaluation", **common, **_evaluation(path, facts, files))
        if "items.json" in files:
            return Entry(kind="analysis", **common, what=_overrides(facts))
        return Entry(kind="run", **(common | _run(path, facts, result)))
    except (ValueError, TypeError, KeyError, AttributeError, OSError, RecursionError) as error:
        reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        return Entry(folder=folder, kind="unreadable", what=reason, pages=pages)


def _run(path: Path, facts: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    curves = read_readable(path / "metrics.csv", [])
    done = len(curves.get("rollout_step", ()))
    evaluation = result.get("evaluation") or {}
    after = evaluation[list(evaluation)[-1]] if evaluation else {}
    accuracies = {str(name): _interval(one["accuracy"]) for name, one in after.items()}
    validated = finite(curves.get("validation/accuracy", ()))
    if validated and not accuracies:
        accuracies = {"validation": (validated[-1], None, None)}
    reward = curves.get("reward/mean", ())[-max(1, done // 10) :]
    known = {"state": f"unfinished after {done} rollouts"} if not result else {}
    return known | {
        "what": _overrides(facts),
        "accuracies": accuracies,
        "reward": sum(reward) / len(reward) if reward else None,
        "collapse": judge_collapse(curves) if done else None,
    }


def _evaluation(path: Path, facts: Mapping[str, Any], files: frozenset[str]) -> dict[str, Any]:
    of = str((facts.get("checkpoint") or {}).get("given") or "the starting policy")
    if "summary.json" not in files:
        return {"what": of}
    summary = read_object(path / "summary.json", remedy=_REMEDY)
    sets = {
        f"{one['label']}, {one['view']}" if one["view"] != "image" else one["label"]: one
        for one in summary["sets"]
    }
    return {
        "what": of,
        "accuracies": {str(name): _interval(one["accuracy"]) for name, one in sets.items()},
    }


def _interval(one: Mapping[str, float]) -> Accuracy:
    return float(one["value"]), float(one["low"]), float(one["high"])


def _state(result: Mapping[str, Any]) -> str:
    if not result:
        return "unfinished"
    status = str(result["status"])
    return f"{status}: {str(result['error'])[:200]}" if result.get("error") else status


def _overrides(facts: Mapping[str, Any]) -> str:
    overrides = facts.get("overrides") or []
    return " ".join(str(one) for one in overrides if not str(one).startswith("run_dir="))[:300]


def _pages(folder: str, files: frozenset[str]) -> tuple[str, ...]:
    # An evaluation's attention page lies in a folder of its own, where no run is.
    return tuple(f"{folder}/{name}" for name in PAGES if name in files)


def _foreign(root: Path, entries: list[Entry]) -> Iterator[Entry]:
    """Folders right below that hold nothing of papo."""
    for path in sorted(root.iterdir()):
        name = path.name
        if path.is_symlink() or not path.is_dir() or name[:1] == "." or name in _SKIPPED:
            continue
        if not any(_is_below(one.folder, name) for one in entries):
            yield Entry(folder=name, kind="unreadable", what="holds nothing that papo wrote")


def _is_below(folder: str, other: str) -> bool:
    return folder == other or other == "." or folder.startswith(f"{other}/")
