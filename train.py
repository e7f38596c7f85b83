"""Trains a policy with PAPO: `python train.py`, `python train.py +experiment=papo_geo3k`, ...

The command is papo/commands/train.py; the algorithm is papo/training/collect.py and papo/training/module.py.
"""

import sys

from papo.commands.command_line import run

if __name__ == "__main__":
    sys.exit(run("train"))
