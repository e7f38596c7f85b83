"""`python -m papo COMMAND ...` (papo/commands/command_line.py)."""

import sys

from papo.commands.command_line import main

if __name__ == "__main__":
    sys.exit(main())
