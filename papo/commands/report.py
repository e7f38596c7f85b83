"""Writes one self-contained page about a training run, or about the runs of a sweep.

    papo report RUN [--output FILE]                         RUN/report.html: curves, collapse, rollouts by token
    papo report SWEEP [SWEEP ...] [--output FOLDER]         arms, seeds, intervals, learning curves
                      [--baseline ARM] [--arms A,B]

RUN is the folder of a run (its run_dir), finished, failed or still running; SWEEP what the jobs of a sweep share, and
several are the same sweep from different starts. docs/pages.md and docs/sweeps.md say what is on the pages.
"""

import sys
from pathlib import Path

from papo.commands import report_run, report_sweep


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
    is_run = any((folder / name).is_file() for name in ("run.json", "metrics.csv"))
    return report_run.main() if is_run else report_sweep.main()
