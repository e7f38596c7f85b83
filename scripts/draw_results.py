"""Draws the figures that pages of results begin with, from the tables of these pages: python scripts/draw_results.py

What is drawn says docs/results/figures.yaml. A figure says what its page says, to the digit.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

# A clone that is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from papo.analysis.sweeps.forest import Panel, forest_file
from papo.reporting.charts import Dot
from papo.storage.files import write_atomically

PAGES = Path(__file__).resolve().parents[1] / "docs" / "results"


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--folder",
        type=Path,
        default=PAGES,
        help="has the pages and figures.yaml, and gets the figures (default: docs/results)",
    )
    folder = parser.parse_args().folder
    try:
        figures = yaml.safe_load((folder / "figures.yaml").read_text("utf-8"))
        for name, figure in figures.items():
            text = (folder / f"{figure['page']}.md").read_text("utf-8")
            panels = [panel_of(text, **panel) for panel in figure["panels"]]
            write_atomically(folder / f"{name}.svg", forest_file(panels))
            print("Wrote", folder / f"{name}.svg")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def panel_of(
    text: str,
    *,
    title: str,
    column: str,
    sections: Sequence[str],
    zero: str = "",
    along: str = "",
    only: str = "",
) -> Panel:
    """Reads the differences, or shares, in one column of the first tables of some sections of a page.

    Args:
        text: the page.
        title: above the panel.
        column: the name that stands in the tables.
        sections: their headings.
        zero: what the differences are from, where a table has several such rows; by default the arm of the first.
        only: what the names of rows that are drawn end with.
        along: what the shares are of; the cells are shares then, and no row is what they differ from.

    Raises:
        ValueError: a section, the column or a first row is not there, or a cell has no interval.
    """
    effects, firsts = {}, []
    for section in sections:
        for arm, cell in _cells(text, section, column):
            if arm.endswith(", itself"):
                firsts.append(arm.removesuffix(", itself"))
            # An arm has no difference from itself.
            elif cell and arm.endswith(only):
                effects[arm] = _effect(cell)
    named = [arm.partition(": ") for arm in effects]
    if all(mark for _, mark, _ in named) and len(effects) > 1:
        # "REGIME: ARM": what all rows share the title or the caption says.
        shared = len({regime for regime, _, _ in named}) == 1, len({arm for *_, arm in named}) == 1
        part = 2 if shared[0] else 0
        if any(shared):
            effects = {arm.partition(": ")[part]: dot for arm, dot in effects.items()}
            firsts = [first.partition(": ")[part] for first in firsts]
    if along and effects and not firsts:
        return Panel(title=title, baseline="", effects=effects, along=along)
    if not effects or (len(firsts) != len(sections) and not (zero and firsts)):
        raise ValueError(
            f"a table has one row 'ARM, itself' and others; got {firsts} as the first rows"
        )
    return Panel(title=title, baseline=zero or firsts[0], effects=effects)


def _cells(text: str, section: str, column: str) -> Iterator[tuple[str, str]]:
    """Arm and cell of every row of the first table below a heading."""
    below = re.search(rf"^#+ {re.escape(section)}$(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    if below is None:
        raise ValueError(f"the page has no section {section!r}")
    table = re.search(r"(?:^\|.*\n)+", below[1], re.MULTILINE)
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (table[0] if table else "").splitlines()
    ]
    if not rows or column not in rows[0]:
        raise ValueError(f"the first table of {section!r} has no column {column!r}")
    for row in rows[2:]:
        yield row[0].replace("`", ""), row[rows[0].index(column)]


def _effect(cell: str) -> Dot:
    """`+0.3 [-0.1, +0.7] [-0.6, +1.2]`: value, the interval over starts where there are two, that over seeds."""
    value, *ends = map(float, re.findall(r"[-+]?\d+\.\d+", cell))
    ranges = list(zip(ends[::2], ends[1::2], strict=True))
    if not 1 <= len(ranges) <= 2:
        raise ValueError(f"a difference has one interval, or two; got {cell!r}")
    return Dot(value=value, narrow=ranges[-1], wide=ranges[0] if len(ranges) == 2 else None)


if __name__ == "__main__":
    sys.exit(main())
