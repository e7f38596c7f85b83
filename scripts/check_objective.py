"""Evaluates the official objective on golden cases and prints the worst absolute error of each.

    python scripts/check_objective.py tests/golden/papo_objective.json

Composes conf/ with fidelity=official, so what is checked is what `python train.py` would train with.
Exits with 1 if any case differs by more than 1e-9, and on a key, field or value it does not understand; with
2 where there is no file of cases to read.
"""

import sys
from pathlib import Path

# A clone that is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from papo.commands.check_objective import main

if __name__ == "__main__":
    sys.exit(main())
