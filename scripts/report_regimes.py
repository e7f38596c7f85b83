"""What each arm is worth in several regimes, against one of them: python scripts/report_regimes.py RUNS [RUNS ...]

RUNS are sweeps, one per regime (few answers known, another world), whose arms were run with the same seeds: their folders,
or what --keep FOLDER made of them, a file each that is small enough to lie beside a page (docs/results/runs).
Each gives a row per arm: differences from the baseline paired by seed, in points with 95 % t intervals, how many runs
collapsed (papo.statistics.COLLAPSE_RULE), and what a safeguard did in how many of them; *: q < 0.05 (Benjamini and Hochberg
over the arms of a column and regime). --beside ARM adds the difference over all rollouts from a second arm; --best-first orders
by that from the first. --page FILE puts the table below its heading "Against GRPO", or another; docs/results/lab_safeguard.md
is one. Nothing but files is read.
"""

import argparse
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

# A clone that is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from papo.analysis.sweeps.cells import collapsed_cell, mean_cell, starred_cell
from papo.analysis.sweeps.comparison import SweepSummary, summarize_sweep
from papo.reporting.markdown_text import markdown_table, replaced_table
from papo.storage.files import write_atomically
from papo.storage.kept_runs import keep_runs
from papo.storage.sweep_folders import read_sweep
from papo.storage.sweep_runs import SweepRun

MEASURES = {
    "accuracy_curve": "mean over all rollouts",
    "accuracy, training prior": "training prior",
    "accuracy, counter-prior": "counter-prior",
}
ACTED_COLUMNS = (ACTED := "steered", "went back")
FACTOR, RETURNED = "safeguard/factor", "safeguard/returned_to"


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="RUNS")
    parser.add_argument("--baseline", default="grpo", help="arm (default: grpo)")
    parser.add_argument("--beside", metavar="ARM", help="compared with as well")
    parser.add_argument("--best-first", action="store_true", help="arms by accuracy, not as listed")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="write a file per regime there")
    parser.add_argument("--page", type=Path, help="of Markdown, whose table is replaced")
    parser.add_argument("--heading", default="Against GRPO", help="above that table")
    arguments = parser.parse_args()
    try:
        folders = arguments.folders
        if arguments.keep:
            # Read again, so that the table is that of the files.
            folders = [kept(folder, arguments.keep) for folder in folders]
        table = table_of(
            folders, arguments.baseline, arguments.beside, best_first=arguments.best_first
        )
        if page := arguments.page:
            text = replaced_table(page.read_text("utf-8"), arguments.heading, table)
            write_atomically(page, text)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table)
    return 0


def kept(runs: Path, folder: Path) -> Path:
    """Writes the runs of a regime into one file of that folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{runs.name}.jsonl"
    keep_runs(read_sweep(runs), path)
    return path


def table_of(
    folders: Sequence[Path], baseline: str, beside: str | None = None, *, best_first: bool = False
) -> str:
    """A row per regime and arm, the baseline of a regime first."""
    rows = [row for folder in folders for row in rows_of(folder, baseline, beside, best_first)]
    if any(row[ACTED] for row in rows):
        columns = list(rows[0])
    else:
        columns = [name for name in rows[0] if name not in ACTED_COLUMNS]
    return markdown_table(columns, [[row[name] for name in columns] for row in rows], texts=1)


def rows_of(
    folder: Path, baseline: str, beside: str | None, best_first: bool
) -> Iterable[dict[str, str]]:
    """The rows of one regime: column -> cell."""
    sweep = read_sweep(folder)
    summary = summarize_sweep(sweep, baseline=baseline)
    has_second = beside is not None and bool(sweep.of_arm(beside))
    second = summarize_sweep(sweep, baseline=beside) if has_second else None
    first, *others = summary.arms
    if best_first:
        others.sort(key=lambda arm: -summary.scores[arm]["accuracy_curve"].mean)
    for arm in (first, *others):
        runs = summary.sweep.of_arm(arm)
        row = {
            "": f"{folder.name.removesuffix('.jsonl')}: {arm}"
            + ", itself" * (arm == summary.baseline),
            "seeds": str(len(runs)),
        }
        for measure, column in MEASURES.items():
            row[column] = cell(summary, arm, measure)
            if beside is not None and measure == "accuracy_curve":
                has_cell = second is not None and arm != beside
                row[f"than `{beside}`"] = cell(second, arm, measure) if has_cell else ""
        row["collapsed"] = collapsed_cell(summary.signs[arm])
        yield row | dict(zip(ACTED_COLUMNS, acted(runs), strict=True))


def cell(summary: SweepSummary, arm: str, measure: str) -> str:
    """The difference from the baseline; of the baseline itself, its mean."""
    score, tested = summary.scores[arm].get(measure), summary.comparisons[arm].get(measure)
    if tested is not None:
        return starred_cell(tested.difference, tested.q_value)
    if score is not None and arm == summary.baseline:
        return mean_cell(measure, score.mean, score.interval, number=len(score.values))
    return ""


def acted(runs: Sequence[SweepRun]) -> tuple[str, str]:
    """In how many runs a safeguard held something back, and in how many it went back to a checkpoint."""
    factors = [run.curves[FACTOR] for run in runs if FACTOR in run.curves]
    if not factors:
        return "", ""
    back = [any(map(math.isfinite, run.curves.get(RETURNED, ()))) for run in runs]
    return str(sum(min(one) < 1 for one in factors)), str(sum(back))


if __name__ == "__main__":
    sys.exit(main())
