"""Reports on a sweep: `python scripts/report_sweep.py outputs/sweeps/lab_gamma-lab`.

Reads the run folders below FOLDER, and nothing else; writes report.csv, runs.csv, report.md and the
self-contained page report.html. Several folders are one sweep from different starts (other models);
their report compares the arms within and over the starts, and adds pooled.csv.
"""

import sys
from pathlib import Path

# A clone that is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from papo.commands.report_sweep import main

if __name__ == "__main__":
    sys.exit(main())
