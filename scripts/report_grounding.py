"""Which numbers of an audit follow real misreading, over audits of lab policies: python scripts/report_grounding.py FOLDER ...

FOLDER is what `evaluate.py checkpoint=RUN audit=grounding` wrote of a finished lab run, or a folder of such folders.
Prints Markdown, in hundredths: rank correlations with the true misread share over policies, with bootstrap intervals over
policies, and how well a response's own numbers tell those read right from those misread (docs/results/lab_grounding.md).
"""

import argparse
import sys
from pathlib import Path

# A clone that is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from papo.evaluation.compare.grounding_truth import (
    MOST_FORMAT,
    areas,
    read_audited,
    track,
)
from papo.reporting.markdown_text import markdown_table
from papo.reporting.numbers import interval_text
from papo.statistics import Interval


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    arguments = parser.parse_args()
    try:
        found = [
            read_audited(file.parent)
            for folder in arguments.folders
            for file in sorted(folder.rglob("grounding.csv"))
        ]
        if not found:
            raise ValueError(f"no audit lies below {', '.join(map(str, arguments.folders))}")
    except (ValueError, OSError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    kept = [one for one in found if one.format <= MOST_FORMAT]
    misread = sorted(one.misread for one in kept)
    print(
        f"{len(kept)} policies; {len(found) - len(kept)} left out, which break the grammar in more than "
        f"{100 * MOST_FORMAT:.0f} % of responses. True misread share {100 * misread[0]:.0f} to {100 * misread[-1]:.0f} %.\n"
    )
    print(
        markdown_table(
            ["number", "policies", "misread share", "misread share, Pearson", "prior drop"],
            [
                ["`no relation`, itself", "", "0.0", "0.0", "0.0"],
                *(
                    [
                        f"`{one.name}`",
                        str(one.num_policies),
                        _cell(one.with_misread),
                        _cell(one.linear),
                        _cell(one.with_prior_drop),
                    ]
                    for one in track(kept, seed=arguments.seed)
                    if one.num_policies
                ),
            ],
            texts=1,
        )
    )
    print()
    print(
        markdown_table(
            ["number of a response", "policies", "area above chance"],
            [
                ["chance, itself", "", "0.0"],
                *(
                    [name, str(number), _area(value, interval)]
                    for name, (number, value, interval) in areas(kept).items()
                ),
            ],
            texts=1,
        )
    )
    return 0


def _cell(found: Interval | None) -> str:
    return "" if found is None else interval_text(found, lambda one: f"{100 * one:+.1f}")


def _area(value: float, found: Interval | None) -> str:
    """An area of 0.5 is chance."""
    if found is None:
        return f"{100 * (value - 0.5):+.1f}"
    return interval_text(found, lambda one: f"{100 * (one - 0.5):+.1f}")


if __name__ == "__main__":
    sys.exit(main())
