"""Evaluates a policy: `python evaluate.py checkpoint=RUN_OR_FOLDER benchmark=all`.

The command is papo/commands/evaluate.py; the loop is papo/evaluation/run/runner.py.
"""

import sys

from papo.commands.command_line import run

if __name__ == "__main__":
    sys.exit(run("evaluate"))
