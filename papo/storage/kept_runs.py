"""The finished runs of a sweep in one file: small enough to lie beside a page, and every table can be computed from it."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from papo.statistics import judged_columns
from papo.storage.files import DamagedFile, write_atomically
from papo.storage.sweep_runs import COST_COLUMN, COST_SETTING, Sweep, SweepRun, require_comparable

DIGITS = 5


def keep_runs(sweep: Sweep, path: Path) -> None:
    """Writes the finished runs, a line of JSON each below one for the sweep.

    Of a run are kept: all scores; the curves that decide whether it collapsed, what it cost and what a
    safeguard did; its commit, and the setting that its cost follows from. Numbers have five digits.
    """
    head = {"sweep": sweep.name, "arms": sweep.arms}
    runs = (run for arm in sweep.arms for run in sweep.of_arm(arm))
    lines = [json.dumps(line) for line in (head, *map(_record, runs))]
    write_atomically(path, "".join(f"{line}\n" for line in lines))


def read_kept_runs(path: Path) -> Sweep:
    """Reads what `keep_runs` wrote.

    Raises:
        DamagedFile: it is something else.
    """
    runs: list[SweepRun] = []
    try:
        first, *others = path.read_bytes().decode("utf-8").splitlines()
        head = json.loads(first)
        name, arms = str(head["sweep"]), tuple(map(str, head["arms"]))
        runs.extend(_run(json.loads(line)) for line in others)
        if not runs:
            raise ValueError("it holds no run")
        require_comparable(runs)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedFile(
            f"{path} is no file of kept runs: {error!r} behind run {len(runs)}. Write it anew from the "
            "folder of the sweep: python scripts/report_regimes.py FOLDER --keep FOLDER"
        ) from error
    return Sweep(name=name, runs=tuple(runs), lost=(), arm_order=arms)


def _record(run: SweepRun) -> dict[str, Any]:
    columns = [
        *judged_columns(run.curves),
        *(name for name in run.curves if name == COST_COLUMN or name.startswith("safeguard/")),
    ]
    return {
        "arm": run.arm,
        "seed": run.seed,
        "folder": run.folder,
        "commit": run.commit,
        "settings": {name: run.settings[name] for name in (COST_SETTING,) if name in run.settings},
        "scores": {name: _rounded(score) for name, score in run.scores.items()},
        "curves": {name: list(map(_rounded, run.curves[name])) for name in columns},
    }


def _rounded(value: float) -> float | int | None:
    """Whole numbers without a point; null is what is no number."""
    if math.isnan(value):
        return None
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded.is_integer() else rounded


def _run(record: Mapping[str, Any]) -> SweepRun:
    return SweepRun(
        folder=str(record["folder"]),
        arm=str(record["arm"]),
        seed=int(record["seed"]),
        curves={
            name: tuple(math.nan if value is None else float(value) for value in values)
            for name, values in record["curves"].items()
        },
        scores={name: float(score) for name, score in record["scores"].items()},
        commit=record["commit"],
        settings=dict(record["settings"]),
    )
