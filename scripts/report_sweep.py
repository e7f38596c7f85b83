"""Reports on a sweep: `python scripts/report_sweep.py outputs/sweeps/lab_gamma-lab`.

Reads the run folders below FOLDER, and nothing else; writes report.csv, runs.csv, report.md and the
self-contained page report.html.
"""

import argparse
import sys
from pathlib import Path

from papo.analysis.sweep_comparison import summarize_sweep
from papo.analysis.sweep_report import lead, write_report
from papo.analysis.sweep_runs import read_sweep


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="what the jobs of the sweep share")
    parser.add_argument("--baseline", help="the arm that others are compared with (default: grpo)")
    parser.add_argument(
        "--arms",
        type=lambda text: text.split(","),
        metavar="A,B",
        help="compare these alone with it",
    )
    parser.add_argument("--output", type=Path, help="where the report goes (default: FOLDER)")
    arguments = parser.parse_args()
    try:
        summary = summarize_sweep(
            read_sweep(arguments.folder), baseline=arguments.baseline, arms=arguments.arms
        )
        files = write_report(summary, arguments.output or arguments.folder)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(lead(summary))
    for job in summary.sweep.lost:
        print(f"{job.status}: {job.arm}, seed {job.seed} {job.reason}".rstrip())
    print("Wrote", ", ".join(map(str, files)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
