"""Reports on a sweep: `papo report outputs/sweeps/lab_gamma-lab`.

Reads the run folders below FOLDER, and nothing else; writes report.csv, runs.csv, report.md and the
self-contained page report.html. Several folders are one sweep from different starts (other models);
their report compares the arms within and over the starts, and adds pooled.csv.
"""

import argparse
import sys
from pathlib import Path

from papo.analysis.sweeps.comparison import SweepSummary, summarize_sweep
from papo.analysis.sweeps.pooled_report import pooled_lead, write_pooled_report
from papo.analysis.sweeps.pooling import read_starts, summarize_starts
from papo.analysis.sweeps.report import lead, write_report
from papo.storage.sweep_folders import read_sweep


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "folders",
        type=Path,
        nargs="+",
        metavar="FOLDER",
        help="what the jobs of the sweep share; several: the same sweep from different starts",
    )
    parser.add_argument("--baseline", help="the arm that others are compared with (default: grpo)")
    parser.add_argument(
        "--arms",
        type=lambda text: text.split(","),
        metavar="A,B",
        help="compare these alone with it",
    )
    parser.add_argument(
        "--output", type=Path, help="where the report goes (default: FOLDER, if it is one)"
    )
    arguments = parser.parse_args()
    try:
        starts, text, files = _report(arguments)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(text)
    for summary in starts:
        for job in summary.sweep.lost:
            print(f"{job.status}: {job.arm}, seed {job.seed} {job.reason}".rstrip())
    print("Wrote", ", ".join(map(str, files)))
    return 0


def _report(arguments: argparse.Namespace) -> tuple[list[SweepSummary], str, tuple[Path, ...]]:
    """The summary of each start, what was run, and the files written."""
    folders, choice = arguments.folders, {"baseline": arguments.baseline, "arms": arguments.arms}
    if len(folders) == 1:
        if folders[0].is_file() and arguments.output is None:
            raise ValueError("a report on a file of kept runs is not in it: add --output FOLDER")
        summary = summarize_sweep(read_sweep(folders[0]), **choice)
        return [summary], lead(summary), write_report(summary, arguments.output or folders[0])
    if arguments.output is None:
        raise ValueError("a report on several folders is in none of them: add --output FOLDER")
    pooled = summarize_starts(read_starts(folders), **choice)
    files = write_pooled_report(pooled, arguments.output)
    return list(pooled.starts.values()), pooled_lead(pooled), files
