"""python scripts/compare_arms.py NAME=FOLDER ...: evaluations as one table, laid out as the paper's Table 1.

FOLDERs are what evaluate.py wrote, on the same problems with the same settings. An arm is compared
with the last baseline before it: `grpo=A papo=B`, or, with two blocks,
`grpo_3b=A papo_g_3b=B grpo_7b=C papo_g_7b=D --baseline grpo_3b --baseline grpo_7b`. Arms named as a row
of papo/storage/published.yaml have the published row below them. Paired tests of two arms are
scripts/compare_runs.py's.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from papo.evaluation.compare.comparison import read_evaluation
from papo.evaluation.compare.table_of_arms import tabulate_arms
from papo.evaluation.compare.table_of_arms_report import arms_terminal_table, write_table_of_arms


def named_folders(arguments: list[str]) -> dict[str, Path]:
    """Returns the folders by arm.

    Raises:
        ValueError: an argument is no NAME=FOLDER, or a name comes twice.
    """
    folders: dict[str, Path] = {}
    for argument in arguments:
        name, equals, folder = argument.partition("=")
        if not (name and equals and folder):
            raise ValueError(f"an arm is NAME=FOLDER; got {argument!r}")
        if name in folders:
            raise ValueError(f"every arm has a name of its own; {name!r} comes twice")
        folders[name] = Path(folder)
    return folders


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("arms", nargs="+", metavar="NAME=FOLDER", help="an evaluation folder")
    parser.add_argument(
        "--baseline", action="append", metavar="NAME", help="may be repeated (default: first arm)"
    )
    parser.add_argument("--view", default="image", help="tabulate another view's responses")
    parser.add_argument(
        "--any-settings", action="store_true", help="allow arms that were not measured alike"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--output", type=Path, help="folder for arms.md, arms.csv and arms.json")
    arguments = parser.parse_args()
    try:
        folders = named_folders(arguments.arms)
        found = tabulate_arms(
            {
                name: read_evaluation(folder, view=arguments.view)
                for name, folder in folders.items()
            },
            baselines=arguments.baseline or [next(iter(folders))],
            any_settings=arguments.any_settings,
            seed=arguments.seed,
        )
        if arguments.output is not None:
            write_table_of_arms(found, arguments.output)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    # Without a terminal rich assumes 80 columns; the table needs more.
    console = Console(width=None if sys.stdout.isatty() else 240)
    console.print(arms_terminal_table(found))
    for note in found.notes:
        console.print(
            f"  not measured alike: {note}", highlight=False, soft_wrap=True, markup=False
        )
    if arguments.output is not None:
        print(f"wrote {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
