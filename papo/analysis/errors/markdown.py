"""report.md of an error analysis."""

from papo.analysis.errors.misreading_report import (
    GUESSED,
    confusion_table,
    fact_table,
    misreading_sentences,
    side_table,
)
from papo.analysis.errors.summary import ErrorSummary
from papo.analysis.errors.tables import (
    REGRESSION,
    agreement_table,
    asked_sentences,
    headline_sentences,
    labeller_notes,
    paper_table,
    share_table,
    transition_sentences,
    transition_table,
)
from papo.analysis.errors.taxonomy import DEFINITIONS, ERROR_CATEGORIES
from papo.reporting.markdown_text import markdown_table, markdown_text


def report_markdown(summary: ErrorSummary) -> str:
    """Returns report.md: what report.html says, without the cases."""
    parts = ["# What the wrong answers got wrong", *map(markdown_text, headline_sentences(summary))]
    parts += _misread(summary)
    for name, labeller in summary.labellers.items():
        parts += [
            f"## Labelled by {markdown_text(name)}",
            *map(markdown_text, labeller_notes(labeller)),
        ]
        parts.append(markdown_table(*share_table(summary, name)))
        parts += map(markdown_text, asked_sentences(summary, name))
    if summary.transitions:
        parts += ["## What changed", REGRESSION]
        for one in summary.transitions:
            parts += [markdown_text(f"{one.before} to {one.after}, labelled by {one.labeller}:")]
            parts += [markdown_table(*transition_table(one)), *transition_sentences(one)]
    if summary.agreement:
        parts += ["## Agreement between labellers"]
        parts.append(markdown_table(*agreement_table(summary)))
    parts += ["## Beside the paper", markdown_table(*paper_table(summary))]
    parts += ["## Categories"]
    parts.append(
        "\n".join(f"* **{name}**: {DEFINITIONS[name].meaning}" for name in ERROR_CATEGORIES)
    )
    return "\n\n".join(parts) + "\n"


def _misread(summary: ErrorSummary) -> list[str]:
    parts = []
    if summary.readings or summary.misread_facts:
        parts.append("## What is misread")
    for one in summary.readings:
        parts += map(markdown_text, misreading_sentences(one))
        if one.readings:
            tables = (confusion_table(one), side_table(one))
            parts += [markdown_table(*content) for content in tables] + [GUESSED]
    if summary.misread_facts:
        parts.append(markdown_table(*fact_table(summary)))
    return parts
