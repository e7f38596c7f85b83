"""python scripts/compare_costs.py GRPO_RUN PAPO_RUN ...: what a step costs, beside the paper's Table 14.

Reads timings.csv of run folders that train.py wrote on one machine, finished or not. The first run
is what the others are divided by. Prints Markdown; settings other than the method in which runs
differ are named.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from papo.analysis.pages.costs import cost_markdown, cost_notes, read_cost
from papo.storage.files import write_atomically


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a training run")
    parser.add_argument(
        "--skip", type=int, default=1, help="steps left out at the start (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, help="also write the table to this Markdown file")
    arguments = parser.parse_args()
    try:
        if arguments.skip < 0:
            raise ValueError(f"--skip leaves out 0 or more steps; got {arguments.skip}")
        costs = [read_cost(run, skip=arguments.skip) for run in arguments.runs]
        notes = "".join(f"* {note}\n" for note in cost_notes(costs))
        text = f"{cost_markdown(costs)}\n{notes}"
        if arguments.output is not None:
            write_atomically(arguments.output, text)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
