"""Says how far a method is from what its authors' functions compute: `python scripts/check_method.py FILE.json ...`.

A file holds cases of one method (docs/methods.md, "Checking a method"): inputs, settings and outputs. For each case
the worst error |a - b| / (1 + |b|) over all outputs is printed; the exit status is 1 where one is above the file's
tolerance, an output is not computed, or a file holds no such cases.
"""

import sys
from pathlib import Path

# A clone that is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from papo.commands.check_method import main

if __name__ == "__main__":
    sys.exit(main())
