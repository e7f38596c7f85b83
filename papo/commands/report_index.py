"""Writes one self-contained HTML page about a folder of runs: what ran, what came of it, and where its pages are.

    papo report FOLDER [--output FILE]

FILE is FOLDER/index.html unless it is named; its links lead from there to the pages of runs.
"""

import argparse
import sys
from pathlib import Path

from papo.analysis.pages.index import build_index_page
from papo.storage.files import write_atomically


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="of runs, e.g. outputs")
    parser.add_argument("--output", type=Path, help="file to write (default: FOLDER/index.html)")
    arguments = parser.parse_args()
    output = arguments.output or arguments.folder / "index.html"
    try:
        text = build_index_page(arguments.folder, links_from=output.parent)
        write_atomically(output, text)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{output} ({len(text.encode()) / 1e6:.1f} MB)")
    return 0
