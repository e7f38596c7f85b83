"""Writes one self-contained page about a training run, the runs of a sweep, or all that lies in a folder.

    papo report RUN [--output FILE]                         RUN/report.html: curves, collapse, rollouts by token
    papo report SWEEP [SWEEP ...] [--output FOLDER]         arms, seeds, intervals, learning curves
                      [--baseline ARM] [--arms A,B]
    papo report FOLDER [--output FILE]                      FOLDER/index.html: what ran, what came of it, where its pages are

RUN is the folder of a run (its run_dir), finished, failed or still running; SWEEP what the jobs of a sweep share, and
several are the same sweep from different starts; FOLDER holds runs of several kinds, as outputs/ does.
docs/pages.md and docs/sweeps.md say what is on the pages.
"""

import sys
from pathlib import Path

from papo.commands import report_index, report_run, report_sweep
from papo.storage.sweep_folders import is_one_sweep


def main() -> int:
    """Chooses by what the first folder holds; returns the exit code."""
    words = sys.argv[1:]
    if not words or {"-h", "--help"} & {*words}:
        print(__doc__)
        return 0 if words else 2
    folder = Path(words[0])
    if not folder.is_dir() and not words[0].startswith("-"):
        print(f"error: {folder} is no folder of a run or of a sweep", file=sys.stderr)
        return 1
    if any((folder / name).is_file() for name in ("run.json", "metrics.csv")):
        return report_run.main()
    is_sweep = len(words) > 1 and words[1] != "--output"
    return report_sweep.main() if is_sweep or is_one_sweep(folder) else report_index.main()
