"""Prints how often each grader agrees with a file of verdicts, and where it does not.

    python scripts/check_grader.py FILE.jsonl [--minimum 84] [--grader combined]

Each line of FILE is an object with `prediction` (a whole response), `answer` (the reference),
`expected` (true or false) and, if wanted, `note`. Exits with 1 when the combined grader agrees
on fewer than `--minimum` lines, and with 2 where there is no file of cases to read. The cases of
docs/graders.md are in tests/golden/grader_cases.jsonl.
"""

import sys
from pathlib import Path

# A clone that is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from papo.commands.check_grader import main

if __name__ == "__main__":
    sys.exit(main())
