"""Writes one self-contained HTML page about a training run: finished, failed or still running.

    python scripts/report_run.py RUN [--output FILE]

RUN is the folder of a run of train.py (its run_dir). FILE is RUN/report.html unless it is named.
"""

import sys
from pathlib import Path

# A clone that is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from papo.commands.report_run import main

if __name__ == "__main__":
    sys.exit(main())
