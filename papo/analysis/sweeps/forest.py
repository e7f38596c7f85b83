"""A forest plot: what every arm gains over the baseline, with its interval, one row an arm.

Drawn from the tables that reports of sweeps write, so that a figure says what its report says.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from papo.analysis.sweeps.curves import ticks
from papo.reporting.html import Markup, join

_NAMES, _PANEL, _GAP, _ROW, _TOP, _BOTTOM = 190, 300, 24, 22, 44, 44
_MOST_PANELS = 4

FOREST_STYLE = """
.forest { display: block; width: 100%; height: auto; }
.forest text { fill: var(--ink); font: 13px system-ui, sans-serif; }
.forest .soft { fill: var(--soft); }
.forest .grid { stroke: var(--line); }
.forest .zero { stroke: var(--soft); }
.forest .narrow, .forest .wide { stroke: var(--series-1); }
.forest .wide { opacity: .45; }
.forest circle { fill: var(--series-1); }
"""
_COLOURS_ALONE = """
:root { --ink: #222; --soft: #5a5a5a; --line: #ddd; --series-1: #2b6cb0; }
@media (prefers-color-scheme: dark) { :root { --ink: #eee; --soft: #aaa; --line: #3a3a3a; --series-1: #7ab8ff; } }
"""

Range = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What an arm has more than the baseline, in points.

    Attributes:
        value: the mean difference.
        narrow: its interval over seeds; None where there is none.
        wide: its interval over starts; None where one start was run.
    """

    value: float
    narrow: Range | None
    wide: Range | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One column of the plot: a regime, or a measure.

    Attributes:
        title: above it.
        baseline: what is zero.
        effects: arm -> effect.
    """

    title: str
    baseline: str
    effects: Mapping[str, Effect]


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
    return Panel(
        title=title,
        baseline=found[0]["baseline"],
        effects={row["arm"]: _effect(row) for row in found},
    )


def forest_plot(panels: Sequence[Panel]) -> Markup:
    """Returns an SVG that follows light and dark mode and reads its numbers out.

    A dot is the mean difference, the thick line its interval over seeds, the thin one over starts. Rows are
    sorted by the first panel; an interval that leaves the panel ends at its edge.

    Args:
        panels: one to four, which share their rows.

    Raises:
        ValueError: no panel, or too many to be read.
    """
    if not 1 <= len(panels) <= _MOST_PANELS:
        raise ValueError(f"a forest plot has 1 to {_MOST_PANELS} panels; got {len(panels)}")
    arms = list(dict.fromkeys(arm for panel in panels for arm in panel.effects))
    places = {arm: number for number, arm in enumerate(sorted(arms, key=_by_first(panels)))}
    height = _TOP + _ROW * len(arms) + _BOTTOM
    width = _NAMES + len(panels) * (_PANEL + _GAP)
    names = join(
        Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(
            _NAMES - 10, _row(place) + 4, arm
        )
        for arm, place in places.items()
    )
    columns = join(
        _column(panel, places, left=_NAMES + number * (_PANEL + _GAP), bottom=height - _BOTTOM)
        for number, panel in enumerate(panels)
    )
    return Markup(
        '<svg class="forest" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg>'
    ).format(width, height, "; ".join(map(_spoken, panels)), names, columns)


def as_file(plot: Markup) -> str:
    """Returns a plot as an SVG file, with colours of its own."""
    head, end, rest = plot.partition(">")
    return f'{head} xmlns="http://www.w3.org/2000/svg"{end}<style>{_COLOURS_ALONE}{FOREST_STYLE}</style>{rest}\n'


def _is_compared(row: Mapping[str, Any]) -> bool:
    return row.get("difference") not in (None, "")


def _effect(row: Mapping[str, Any]) -> Effect:
    def ends(low: str, high: str) -> Range | None:
        if row.get(low) in (None, "") or row.get(high) in (None, ""):
            return None
        return 100 * float(row[low]), 100 * float(row[high])

    pooled = "over_starts_low" in row
    return Effect(
        value=100 * float(row["difference"]),
        narrow=ends("within_starts_low", "within_starts_high")
        if pooled
        else ends("difference_low", "difference_high"),
        wide=ends("over_starts_low", "over_starts_high"),
    )


def _by_first(panels: Sequence[Panel]) -> Callable[[str], tuple[float, str]]:
    def key(arm: str) -> tuple[float, str]:
        found = [panel.effects[arm].value for panel in panels if arm in panel.effects]
        return -found[0], arm

    return key


def _row(place: int) -> float:
    return _TOP + _ROW * (place + 0.5)


def _column(panel: Panel, places: Mapping[str, int], *, left: int, bottom: int) -> Markup:
    low, high = _reach(panel)

    def x(value: float) -> float:
        return left + _PANEL * (min(max(value, low), high) - low) / (high - low)

    parts = [
        Markup('<text x="{:.1f}" y="16" text-anchor="middle">{}</text>').format(
            left + _PANEL / 2, panel.title
        ),
        Markup('<text class="soft" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
            left + _PANEL / 2, bottom + 36, f"points more than {panel.baseline}"
        ),
    ]
    for tick in ticks(low, high):
        parts.append(
            Markup(
                '<line class="{}" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>'
                '<text class="soft" x="{:.1f}" y="{}" text-anchor="middle">{}</text>'
            ).format(
                *("zero" if tick == 0 else "grid", x(tick), x(tick), _TOP - 8, bottom),
                *(x(tick), bottom + 16, f"{tick:+g}" if tick else "0"),
            )
        )
    for arm, effect in panel.effects.items():
        y = _row(places[arm])
        for name, ends, stroke in (("wide", effect.wide, 1.5), ("narrow", effect.narrow, 4)):
            if ends is not None:
                parts.append(
                    Markup(
                        '<line class="{}" stroke-width="{}" x1="{:.1f}" x2="{:.1f}" y1="{y}" y2="{y}"/>'
                    ).format(name, stroke, x(ends[0]), x(ends[1]), y=y)
                )
        parts.append(
            Markup('<circle cx="{:.1f}" cy="{}" r="4.5"><title>{}</title></circle>').format(
                x(effect.value), y, f"{arm} {_text(effect)}"
            )
        )
    return join(parts)


def _reach(panel: Panel) -> Range:
    """From the lowest to the highest end of an interval over seeds, zero included."""
    ends = [0.0]
    for effect in panel.effects.values():
        ends += [effect.value, *(effect.narrow or ())]
    low, high = min(ends), max(ends)
    room = 0.05 * (high - low) or 1.0
    return low - room, high + room


def _text(effect: Effect) -> str:
    ends = "" if effect.narrow is None else f" [{effect.narrow[0]:+.1f}, {effect.narrow[1]:+.1f}]"
    return f"{effect.value:+.1f}{ends}"


def _spoken(panel: Panel) -> str:
    arms = ", ".join(f"{arm} {_text(effect)}" for arm, effect in panel.effects.items())
    return f"{panel.title}, points more than {panel.baseline}: {arms}"
