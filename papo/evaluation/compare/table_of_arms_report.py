"""Shows a table of arms: on the terminal, and as arms.md, arms.csv and arms.json."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from papo.evaluation.compare.table_of_arms import ArmScores, TableOfArms
from papo.evaluation.settings import published_columns, published_rows
from papo.reporting.csv_text import csv_text
from papo.reporting.markdown_text import markdown_table, markdown_text
from papo.reporting.numbers import percent
from papo.statistics import Interval
from papo.storage.files import write_atomically, write_json
from papo.storage.published import published_results

RULE = (
    "avg@k in per cent with 95 % intervals by a bootstrap over problems. An average is the unweighted mean "
    "of its benchmarks. A gain is the mean over benchmarks of the arm's score divided by that of the "
    "baseline above it, minus 1, in per cent; problems are resampled for both together. Intervals say how "
    "far other problems could move a number, not how far another training run could. Published rows "
    "(arXiv:2507.06448v5, Table 1) carry none."
)


def arms_terminal_table(found: TableOfArms) -> Table:
    """Returns the table for a terminal, an interval under each value."""
    table = Table(title=f"avg@{found.num_responses} in per cent, view {found.view}")
    for index, heading in enumerate(_headings(found)):
        table.add_column(escape(heading), justify="left" if index == 0 else "right", no_wrap=True)
    for row in _rows(found):
        table.add_row(*(escape(cell.replace(" [", "\n[")) for cell in row))
    return table


def write_table_of_arms(found: TableOfArms, folder: Path) -> None:
    """Writes arms.md, arms.csv (a row per number) and arms.json (measured numbers alone)."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "arms.json", found.to_dict())
    write_atomically(folder / "arms.csv", _csv(found))
    write_atomically(folder / "arms.md", arms_markdown(found))


def arms_markdown(found: TableOfArms) -> str:
    """Returns the table with its rule and notes."""
    lines = ["# Arms", "", RULE, "", f"View {found.view}, k = {found.num_responses}.", ""]
    lines += [f"- not measured alike: {markdown_text(note)}" for note in found.notes] + [""]
    lines.append(markdown_table(_headings(found), [*_rows(found)], texts=1))
    return "\n".join(lines) + "\n"


def _layout(found: TableOfArms) -> list[tuple[str, str]]:
    """("column" | "average" | "gain", its name), as in Table 1: each group after its benchmarks."""
    layout: list[tuple[str, str]] = []
    placed: set[str] = set()
    for group, members in found.groups.items():
        layout += [("column", column) for column in members if column not in placed]
        placed |= set(members)
        layout += [("average", group), ("gain", group)]
    return layout + [("column", column) for column in found.columns if column not in placed]


def _headings(found: TableOfArms) -> list[str]:
    words = {"column": "{}", "average": "{} avg", "gain": "{} gain %"}
    return ["arm", *(words[kind].format(name) for kind, name in _layout(found))]


def _rows(found: TableOfArms) -> Iterator[list[str]]:
    for arm in found.arms:
        yield [
            arm.name,
            *(
                percent(_value(arm, kind, name), signed=kind == "gain")
                for kind, name in _layout(found)
            ),
        ]
        if arm.name in published_rows():
            published = [_published(arm.name, kind, name) for kind, name in _layout(found)]
            if any(value is not None for value in published):
                cells = ("" if value is None else f"{value:.2f}" for value in published)
                yield ["  published", *cells]


def _value(arm: ArmScores, kind: str, name: str) -> Interval | None:
    if kind == "column":
        return arm.columns[name]
    return arm.averages[name] if kind == "average" else arm.gains.get(name)


def _published(arm: str, kind: str, name: str) -> float | None:
    """What the paper prints there, in per cent; None where it prints nothing."""
    if kind == "gain":
        return published_results()["relative_gains"].get(arm, {}).get(name)
    row = published_rows()[arm]
    if kind == "average":
        return row.get(name)
    columns = dict(zip(published_columns(), row["scores"], strict=True))
    return columns.get(name)


def _csv(found: TableOfArms) -> str:
    rows: list[list[Any]] = [
        ["arm", "baseline", "kind", "name", "value", "low", "high", "published"]
    ]
    for arm in found.arms:
        for kind, name in _layout(found):
            interval = _value(arm, kind, name)
            ends = (
                [100 * end for end in (interval.value, interval.low, interval.high)]
                if interval is not None
                else ["", "", ""]
            )
            known = arm.name in published_rows()
            published = _published(arm.name, kind, name) if known else None
            rows.append([arm.name, arm.baseline or "", kind, name, *ends, published])
    return csv_text(rows)
