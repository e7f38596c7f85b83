"""A report as sections of tables, figures and sentences, and how these become Markdown and a page."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from papo.analysis.sweeps.forest import forest_plot, panel_of
from papo.analysis.sweeps.measures import measure_name
from papo.analysis.sweeps.tables import TextTable
from papo.reporting.html import Markup, details, grid, join, page, paragraph, section, table
from papo.reporting.markdown_text import markdown_table, markdown_text

_PANELS = 2
"""Of the forest plot of a report."""

Part = TextTable | Markup | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of a report.

    Attributes:
        anchor: its id on the page.
        heading: text.
        parts: tables, sentences, and figures (Markup), which Markdown leaves out.
        more: further parts, which the page folds away.
        folded: the summary under which it does.
        in_markdown: whether Markdown has the section.
    """

    anchor: str
    heading: str
    parts: Sequence[Part] = ()
    more: Sequence[Part] = ()
    folded: str = ""
    in_markdown: bool = True


def glance(
    rows: Sequence[Mapping[str, Any]],
    measures: Sequence[str],
    *,
    published: Mapping[str, float] | None = None,
) -> list[Section]:
    """Returns the section that a report begins with, where arms were compared: a forest plot.

    Args:
        rows: of the report's table.
        measures: in order; the first that were compared are drawn.
        published: arm -> its published difference from the baseline, in points.
    """
    panels = [panel_of(rows, measure=name, title=measure_name(name)) for name in measures]
    found = [panel for panel in panels if panel is not None][:_PANELS]
    if not found:
        return []
    charts = grid(forest_plot(found, published=published), kind="few")
    return [Section(anchor="glance", heading="At a glance", parts=[charts])]


def to_markdown(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Returns a report as Markdown; sections of figures alone are left out."""
    blocks = [f"# {markdown_text(title)}", markdown_text(lead)]
    for one in sections:
        texts = [part for part in (*one.parts, *one.more) if not isinstance(part, Markup)]
        if not texts or not one.in_markdown:
            continue
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
        join(
            section(
                one.anchor,
                one.heading,
                *map(_on_page, one.parts),
                *([details(one.folded, *map(_on_page, one.more))] if one.more else []),
            )
            for one in sections
        ),
        lead=lead,
        contents={one.anchor: one.heading for one in sections},
    )


def _on_page(part: Part) -> Markup:
    if isinstance(part, Markup):
        return part
    if isinstance(part, TextTable):
        return table(part.caption, part.columns, [tuple(map(_unbroken, row)) for row in part.rows])
    return paragraph(part)


def _unbroken(cell: str) -> str:
    """An interval or a list of numbers stays on one line, which a table of many columns would break."""
    return re.sub(r" (?=[\[/]|of \d)|(?<=of) (?=\d)|(?<=[,/:]) (?=[-+–\d])", "\u00a0", cell)


def _markdown_table(text: TextTable) -> str:
    return f"{markdown_text(text.caption)}\n\n{markdown_table(text.columns, text.rows)}"
