"""The page of a folder of runs: what ran, what came of it, and where its pages are."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from papo.analysis.pages.index_entries import Accuracy, Entry, find_entries
from papo.reporting.charts import Dot, Row, dot_chart
from papo.reporting.html import (
    Markup,
    details,
    grid,
    join,
    page,
    render,
    section,
    table,
)

_NAMES = {
    "run": ("training run", "training runs"),
    "sweep": ("sweep", "sweeps"),
    "evaluation": ("evaluation", "evaluations"),
    "analysis": ("error analysis", "error analyses"),
    "unreadable": ("folder left out", "folders left out"),
}
_MOST_ROWS = 40
"""Of the chart: the newest runs."""


def build_index_page(root: Path, *, links_from: Path | None = None) -> str:
    """Returns the page of a folder; what is broken or foreign in it is listed as such.

    Args:
        root: the folder.
        links_from: the folder in which the page will lie; None for the same.

    Raises:
        ValueError: the folder does not exist, or holds nothing that papo wrote.
    """
    entries = find_entries(root)
    if all(one.kind == "unreadable" for one in entries):
        raise ValueError(f"{root} holds no run, evaluation, analysis or sweep")
    way = Path(os.path.relpath(root.resolve(), (links_from or root).resolve())).as_posix()
    entries = [
        replace(one, pages=tuple(f"{way}/{address}" for address in one.pages)) for one in entries
    ]
    alone = [one for one in entries if not one.sweep]
    of_kind = {kind: [one for one in alone if one.kind == kind] for kind in _NAMES}
    parts = {
        ("runs", "Training runs"): _runs(of_kind["run"]),
        ("sweeps", "Sweeps"): _sweeps(of_kind["sweep"], entries),
        ("evaluations", "Evaluations"): _evaluations(of_kind["evaluation"]),
        ("analyses", "Error analyses"): _analyses(of_kind["analysis"]),
        ("left-out", "Left out"): _left_out(of_kind["unreadable"]),
    }
    shown = {key: body for key, body in parts.items() if body}
    return page(
        f"Runs in {root.resolve().name}",
        join(section(*key, body) for key, body in shown.items()),
        lead=", ".join(
            f"{len(found)} {_NAMES[kind][len(found) != 1]}"
            for kind, found in of_kind.items()
            if found
        )
        + ".",
        contents=dict(shown.keys()),
    )


def _runs(found: Sequence[Entry]) -> Markup:
    if not found:
        return Markup()
    rows = [
        (
            _links(one),
            one.state,
            _collapsed(one),
            _accuracies(one),
            "" if one.reward is None else f"{one.reward:.3f}",
            one.started,
            one.what,
        )
        for one in found
    ]
    columns = [
        "run",
        "state",
        "collapsed",
        "held-out accuracy, %",
        "reward",
        "started",
        "overrides",
    ]
    numbers = table(
        "Accuracy on the held-out problems after training [95 % interval]; reward of the last tenth of the rollouts",
        columns,
        rows,
    )
    return join([_chart(found), numbers], "\n")


def _chart(found: Sequence[Entry]) -> Markup:
    """Held-out accuracies of the runs that have them, the newest first."""
    some = sorted((one for one in found if one.accuracies), key=lambda one: one.started)
    some = some[: -_MOST_ROWS - 1 : -1]
    if not some:
        return Markup()
    sets = list(dict.fromkeys(name for one in some for name in one.accuracies))[:4]
    rows = [
        Row(
            name=one.folder,
            dots=[_dot(one.accuracies[name]) if name in one.accuracies else None for name in sets],
            mark="collapsed" if one.collapse else "",
        )
        for one in some
    ]
    chart = dot_chart(
        "Held-out accuracy", rows, sets, along="% of the responses, 95 % intervals", reach=(0, 100)
    )
    return grid([chart], kind="few")


def _dot(accuracy: Accuracy) -> Dot:
    value, low, high = accuracy
    narrow = None if low is None or high is None else (100 * low, 100 * high)
    return Dot(value=100 * value, narrow=narrow)


def _sweeps(found: Sequence[Entry], entries: Sequence[Entry]) -> Markup:
    if not found:
        return Markup()
    rows = []
    for one in found:
        jobs = [job for job in entries if job.sweep == one.folder and job.kind == "run"]
        finished = [job for job in jobs if job.state == "finished"]
        broken = [j for j in entries if j.sweep == one.folder and j.kind == "unreadable"]
        collapsed = sum(bool(job.collapse) for job in jobs)
        rows.append(
            (
                _links(one),
                len(jobs) + len(broken),
                len(finished),
                f"{collapsed} of {len(finished)}",
                len(broken),
            )
        )
    return table(
        "Jobs of each; papo report FOLDER writes the report of one",
        ["sweep", "jobs", "finished", "collapsed", "unreadable"],
        rows,
    )


def _evaluations(found: Sequence[Entry]) -> Markup:
    if not found:
        return Markup()
    rows = [(_links(one), one.state, _accuracies(one), one.started, one.what) for one in found]
    columns = ["evaluation", "state", "accuracy, %", "started", "of"]
    return table("Accuracy per set of problems [95 % interval]", columns, rows)


def _analyses(found: Sequence[Entry]) -> Markup:
    if not found:
        return Markup()
    rows = [(_links(one), one.state, one.started, one.what) for one in found]
    return table("What wrong answers got wrong", ["analysis", "state", "started", "of"], rows)


def _left_out(found: Sequence[Entry]) -> Markup:
    if not found:
        return Markup()
    rows = [(one.folder, one.what) for one in found]
    return details(
        f"{len(found)} folders",
        table("Folders that are no run, or damaged", ["folder", "why"], rows),
    )


def _accuracies(one: Entry) -> str:
    return "; ".join(
        f"{name}: {100 * value:.1f}"
        + ("" if low is None or high is None else f" [{100 * low:.1f},\u00a0{100 * high:.1f}]")
        for name, (value, low, high) in one.accuracies.items()
    )


def _collapsed(one: Entry) -> str:
    if one.collapse is None:
        return ""
    return f"at rollout {one.collapse.rollout}" if one.collapse else "no"


def _links(one: Entry) -> Markup:
    # A name can look like an address with a scheme; quoted and after ./ it is a path and nothing else.
    pages = [
        (Path(address).stem.replace("_", " "), "./" + quote(address.removeprefix("./")))
        for address in one.pages
    ]
    return render("index_links.html", folder=one.folder, pages=pages)
