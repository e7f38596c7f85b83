"""A report as sections of tables, figures and sentences, and how these become Markdown and a page."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from papo.analysis.sweeps.forest import FOREST_STYLE, forest_plot, panel_of
from papo.analysis.sweeps.measures import measure_name
from papo.analysis.sweeps.tables import TextTable
from papo.reporting.html import Markup, details, join, page, paragraph, section, table
from papo.reporting.markdown_text import markdown_table, markdown_text

_PANELS = 2
"""Of the forest plot of a report."""

_STYLE = """
.chart svg { width: 100%; max-width: 46rem; height: auto; }
.chart text { fill: var(--soft); font-size: 13px; }
.charts .chart text { font-size: 19px; }
@media (max-width: 40rem) { .chart text, .charts .chart text { font-size: 22px; } }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 1rem; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; padding: 0; }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of a report.

    Attributes:
        anchor: its id on the page.
        heading: text.
        parts: tables, sentences, and figures (Markup), which Markdown leaves out.
        folded: a summary under which the page folds the parts away; Markdown leaves
            them out.
    """

    anchor: str
    heading: str
    parts: Sequence[TextTable | Markup | str]
    folded: str = ""


def glance(rows: Sequence[Mapping[str, Any]], measures: Sequence[str]) -> list[Section]:
    """Returns the section that a report begins with, where arms were compared: a forest plot.

    Args:
        rows: of the report's table.
        measures: in order; the first that were compared are drawn.
    """
    panels = [panel_of(rows, measure=name, title=measure_name(name)) for name in measures]
    found = [panel for panel in panels if panel is not None][:_PANELS]
    if not found:
        return []
    return [Section(anchor="glance", heading="At a glance", parts=[forest_plot(found)])]


def to_markdown(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Returns a report as Markdown; sections of figures alone or folded ones are left out."""
    blocks = [f"# {markdown_text(title)}", markdown_text(lead)]
    for one in sections:
        texts = [part for part in one.parts if not (isinstance(part, Markup) or one.folded)]
        if texts:
            blocks.append(f"## {markdown_text(one.heading)}")
        blocks += [
            _markdown_table(part) if isinstance(part, TextTable) else markdown_text(part)
            for part in texts
        ]
    return "\n\n".join(blocks) + "\n"


def to_page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Returns a report as one HTML page that needs no network."""
    return page(
        title,
        join(_html_section(one) for one in sections),
        lead=lead,
        contents={one.anchor: one.heading for one in sections},
        style=_STYLE + FOREST_STYLE,
    )


def _html_section(one: Section) -> Markup:
    parts = [
        part
        if isinstance(part, Markup)
        else table(part.caption, part.columns, [tuple(map(_unbroken, row)) for row in part.rows])
        if isinstance(part, TextTable)
        else paragraph(part)
        for part in one.parts
    ]
    return section(
        one.anchor, one.heading, *([details(one.folded, *parts)] if one.folded else parts)
    )


def _unbroken(cell: str) -> str:
    """An interval or a list of numbers stays on one line, which a table of many columns would break."""
    return re.sub(r" (?=[\[/]|of \d)|(?<=of) (?=\d)|(?<=[,/:]) (?=[-+–\d])", "\u00a0", cell)


def _markdown_table(text: TextTable) -> str:
    return f"{markdown_text(text.caption)}\n\n{markdown_table(text.columns, text.rows)}"
