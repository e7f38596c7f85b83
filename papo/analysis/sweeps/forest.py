"""A forest plot: what every arm gains over the baseline, with its interval, one row an arm.

Drawn from the tables that reports of sweeps write, so that a figure says what its report says.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from papo.reporting.charts import Chart, Dot, Row, as_file, dot_chart

_MOST_PANELS = 4
_FILE_WIDTH = 340  # pixels of a panel: two in a row are as wide as the text of a page
PUBLISHED = "published: overall accuracy, one run of another model and data"

Range = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One column of the plot: a regime, or a measure.

    Attributes:
        title: above it.
        baseline: what is zero.
        effects: arm -> what it has more than the baseline, in points: the mean difference, its interval over
            seeds (narrow), and over starts (wide) where several were run.
        collapsed: arm -> "2 of 8" of its runs, where any did.
        along: what the axis is where the effects are shares in per cent, not differences.
    """

    title: str
    baseline: str
    effects: Mapping[str, Dot]
    collapsed: Mapping[str, str] = field(default_factory=dict)
    along: str = ""


def read_panel(table: Path, *, measure: str, title: str) -> Panel:
    """Reads the differences of one measure from a report's `pooled.csv` or `report.csv`.

    Raises:
        ValueError: the file is neither, or no arm of it was compared by this measure.
    """
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    panel = panel_of(rows, measure=measure, title=title)
    if panel is None:
        measures = {row.get("measure", "") for row in rows if _is_compared(row)}
        raise ValueError(
            f"{table} is the pooled.csv or report.csv of a sweep with differences of {measure!r}; it has them of "
            f"{', '.join(sorted(measures)) or 'nothing'}. Choose one of them, or write the report anew."
        )
    return panel


def panel_of(rows: Sequence[Mapping[str, Any]], *, measure: str, title: str) -> Panel | None:
    """Returns the differences of one measure in the rows of a report's table; None where there are none."""
    found = [row for row in rows if row.get("measure") == measure and _is_compared(row)]
    if not found:
        return None
    collapsed = {}
    for row in rows:
        if row.get("measure") == "collapsed" and float(row["mean"]) > 0:
            total = int(row.get("num_seeds") or row["num_runs"])
            collapsed[row["arm"]] = f"{round(float(row['mean']) * total)} of {total}"
    return Panel(
        title=title,
        baseline=found[0]["baseline"],
        effects={row["arm"]: _effect(row) for row in found},
        collapsed=collapsed,
    )


def forest_file(panels: Sequence[Panel]) -> str:
    """Returns a forest plot as an SVG file for a page of the docs.

    Raises:
        ValueError: as `forest_plot` does.
    """
    return as_file(forest_plot(panels), width=_FILE_WIDTH)


def forest_plot(
    panels: Sequence[Panel], *, published: Mapping[str, float] | None = None
) -> list[Chart]:
    """Returns a chart per panel, with the same rows in the same order: that of the first panel, shares as they come.

    A dot is the mean difference, the thick line its interval over seeds, the thin one over starts. An interval
    that leaves the panel ends at its edge.

    Args:
        panels: one to four.
        published: arm -> its published difference from the baseline, in points; drawn in the first panel.

    Raises:
        ValueError: no panel, or too many to be read.
    """
    if not 1 <= len(panels) <= _MOST_PANELS:
        raise ValueError(f"a forest plot has 1 to {_MOST_PANELS} panels; got {len(panels)}")
    first = panels[0].effects
    arms = list(dict.fromkeys(arm for panel in panels for arm in panel.effects))

    def place(arm: str) -> tuple[float, str]:
        found = next(panel.effects[arm] for panel in panels if arm in panel.effects)
        return -found.value, arm

    charts = []
    for panel, following in zip(panels, [*panels[1:], None], strict=True):
        beside = published if published and panel.effects is first else None
        # Columns that stand for the same runs say it once, at the right.
        marked = {} if following and following.collapsed == panel.collapsed else panel.collapsed
        rows = [
            Row(
                name=arm,
                dots=[
                    panel.effects.get(arm),
                    *([Dot(value=beside[arm]) if arm in beside else None] if beside else []),
                ],
                mark=f"{marked[arm]} collapsed" if arm in marked else "",
            )
            for arm in (arms if panel.along else sorted(arms, key=place))
        ]
        charts.append(
            dot_chart(
                panel.title,
                rows,
                [
                    "share, 95 % interval" if panel.along else "difference, 95 % interval",
                    *([PUBLISHED] if beside else []),
                ],
                along=panel.along or f"points more than {panel.baseline}",
                reference=None if panel.along else 0.0,
                reach=(0.0, 100.0) if panel.along else None,
                signed=not panel.along,
                is_overlaid=True,
            )
        )
    return charts


def _is_compared(row: Mapping[str, Any]) -> bool:
    return row.get("difference") not in (None, "")


def _effect(row: Mapping[str, Any]) -> Dot:
    def ends(low: str, high: str) -> Range | None:
        if row.get(low) in (None, "") or row.get(high) in (None, ""):
            return None
        return 100 * float(row[low]), 100 * float(row[high])

    pooled = "over_starts_low" in row
    return Dot(
        value=100 * float(row["difference"]),
        narrow=ends("within_starts_low", "within_starts_high")
        if pooled
        else ends("difference_low", "difference_high"),
        wide=ends("over_starts_low", "over_starts_high"),
    )
