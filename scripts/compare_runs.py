"""python scripts/compare_runs.py A B: what evaluation B does better and worse than A.

A and B are folders that evaluate.py wrote, on the same problems with the same settings. Prints a
paired comparison per benchmark; with --output also writes comparison.json and comparison.md, which
list the fixed, broken and unchanged problems.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from papo.evaluation.compare.comparison import compare_evaluations, read_evaluation
from papo.evaluation.compare.comparison_report import (
    comparison_notes,
    comparison_table,
    write_comparison,
)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("first", type=Path, help="an evaluation folder: what is compared with")
    parser.add_argument("second", type=Path, help="an evaluation folder: what is compared")
    parser.add_argument("--view", default="image", help="compare another view's responses")
    parser.add_argument("--common", action="store_true", help="leave out problems one run lacks")
    parser.add_argument(
        "--any-settings", action="store_true", help="compare runs that were not measured alike"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--output", type=Path, help="folder for comparison.json and comparison.md")
    arguments = parser.parse_args()
    try:
        comparison = compare_evaluations(
            read_evaluation(arguments.first, view=arguments.view),
            read_evaluation(arguments.second, view=arguments.view),
            common_only=arguments.common,
            any_settings=arguments.any_settings,
            seed=arguments.seed,
        )
        if arguments.output is not None:
            write_comparison(comparison, arguments.output)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    # Without a terminal rich assumes 80 columns; the table needs more.
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(comparison_table(comparison))
    for note in comparison_notes(comparison):
        console.print(f"  {note}", highlight=False, soft_wrap=True, markup=False)
    if arguments.output is not None:
        print(f"wrote {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
