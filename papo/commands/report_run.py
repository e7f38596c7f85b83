"""Writes one self-contained HTML page about a training run: finished, failed or still running.

    papo report RUN [--output FILE]

RUN is the folder of a run of train.py (its run_dir). FILE is RUN/report.html unless it is named.
"""

import argparse
import sys
from pathlib import Path

from papo.analysis.pages.run import build_run_page
from papo.storage.files import write_atomically


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a training run")
    parser.add_argument("--output", type=Path, help="file to write (default: RUN/report.html)")
    arguments = parser.parse_args()
    output = arguments.output or arguments.run / "report.html"
    try:
        text = build_run_page(arguments.run)
        write_atomically(output, text)
    except (OSError, ValueError) as error:
        print(f"report_run: {error}", file=sys.stderr)
        return 2
    print(f"{output} ({len(text.encode()) / 1e6:.1f} MB)")
    return 0
