"""Says what wrong answers got wrong: `python analyze.py runs=[BEFORE,AFTER]`.

The command is papo/commands/analyze.py; docs/error_analysis.md explains the files it writes.
"""

import sys

from papo.commands.command_line import run

if __name__ == "__main__":
    sys.exit(run("analyze"))
