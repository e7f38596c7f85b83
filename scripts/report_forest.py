"""Draws what arms gain over the baseline, one row an arm: python scripts/report_forest.py REPORT ... --output FILE.svg

    python scripts/report_forest.py outputs/few_labels outputs/all_labels --titles "few answers,all answers" --output forest.svg

REPORT is a folder that scripts/report_sweep.py wrote to; several become columns that share their rows. A dot is the mean
difference, the thick line its 95 % interval over seeds, the thin one over starts, where the report has several.
"""

import argparse
import sys
from pathlib import Path

# A clone that is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from papo.analysis.sweeps.forest import Panel, forest_file, read_panel
from papo.storage.files import write_atomically


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("reports", nargs="+", type=Path, metavar="REPORT", help="of one sweep each")
    parser.add_argument(
        "--measure",
        default="accuracy_curve",
        help="as in the report's tables (default: %(default)s)",
    )
    parser.add_argument(
        "--titles", metavar="A,B", help="of the columns (default: the folders' names)"
    )
    parser.add_argument("--output", type=Path, required=True, help="the SVG file")
    arguments = parser.parse_args()
    try:
        write_atomically(arguments.output, forest_file(_panels(arguments)))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("Wrote", arguments.output)
    return 0


def _panels(arguments: argparse.Namespace) -> list[Panel]:
    reports = arguments.reports
    titles = arguments.titles.split(",") if arguments.titles else [each.name for each in reports]
    if len(titles) != len(reports):
        raise ValueError(
            f"--titles names every report; got {len(titles)} for {len(reports)} reports"
        )
    return [
        read_panel(_table(report), measure=arguments.measure, title=title)
        for report, title in zip(reports, titles, strict=True)
    ]


def _table(report: Path) -> Path:
    """What the report of several starts, or else of one, says of its differences."""
    pooled = report / "pooled.csv"
    return pooled if pooled.exists() else report / "report.csv"


if __name__ == "__main__":
    sys.exit(main())
