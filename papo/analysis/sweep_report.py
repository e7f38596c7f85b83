"""Writes the report of a sweep: report.csv, runs.csv, report.md and report.html."""

from pathlib import Path

from papo.analysis.html import Markup, details, join, page, paragraph, section, table
from papo.analysis.sweep_comparison import COLLAPSE_SIGNS, SweepSummary
from papo.analysis.sweep_curves import ArmCurves, legend, line_chart
from papo.analysis.sweep_tables import (
    TextTable,
    comparison_tables,
    csv_rows,
    lost_table,
    runs_table,
    scores_table,
    signs_table,
)
from papo.csv_text import csv_text
from papo.files import write_atomically

_METHOD = (
    "Every finished job is one number per measure. Means over seeds carry the 95 % interval of Student's "
    "t. Arms are compared with the baseline over the seeds both have, by a paired t test; q is p adjusted "
    "over the arms of one measure (Benjamini and Hochberg). The smallest difference found with 80 % power "
    "follows from the spread of the paired differences: a true effect below it is likely to be missed. "
    "An arm chosen because it looks best here has to be confirmed on fresh seeds."
)
_STYLE = """
.chart svg { width: 100%; max-width: 46rem; height: auto; }
.chart text { fill: var(--soft); font-size: 13px; }
.charts .chart text { font-size: 19px; }
@media (max-width: 40rem) { .chart text, .charts .chart text { font-size: 22px; } }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 1rem; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; padding: 0; }
"""


def write_report(summary: SweepSummary, folder: Path) -> tuple[Path, ...]:
    """Writes all files of the report into a folder and returns their paths, the page last."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = runs_table(summary)
    arms = csv_rows(summary)
    texts = {
        "report.csv": csv_text([list(arms[0]), *(list(row.values()) for row in arms)]),
        "runs.csv": csv_text([runs.columns, *runs.rows]),
        "report.md": markdown_report(summary),
        "report.html": html_report(summary),
    }
    for name, text in texts.items():
        write_atomically(folder / name, text)
    return tuple(folder / name for name in texts)


def lead(summary: SweepSummary) -> str:
    """Returns what was run, in a sentence or two."""
    sweep = summary.sweep
    rollouts = len(sweep.runs[0].accuracies)
    seeds = sorted({run.seed for run in sweep.runs})
    text = (
        f"{len(sweep.runs)} finished jobs: {len(summary.arms)} arms, seeds {', '.join(map(str, seeds))}, "
        f"{rollouts} rollouts each. Baseline: {summary.baseline}."
    )
    if sweep.lost:
        text += f" {len(sweep.lost)} more jobs have no result and are listed."
    return text


def notes(summary: SweepSummary) -> list[str]:
    """Returns what a reader should know before comparing."""
    found = []
    commits = sorted({run.commit or "unknown" for run in summary.sweep.runs})
    if len(commits) > 1:
        found.append(f"The jobs ran on different commits: {', '.join(commits)}.")
    else:
        found.append(f"Commit of the source: {commits[0]}.")
    seeds = {arm: {run.seed for run in summary.sweep.of_arm(arm)} for arm in summary.arms}
    if len({frozenset(each) for each in seeds.values()}) > 1:
        found.append(
            "The arms do not have the same seeds, so their means are not of the same draws."
        )
    if any(len(each) == 1 for each in seeds.values()):
        found.append("An arm with a single seed has no interval: one run says little.")
    return found


def markdown_report(summary: SweepSummary) -> str:
    """Returns the report as Markdown."""
    parts = [f"# Sweep {_markdown(summary.sweep.name)}", _markdown(lead(summary))]
    parts += [_markdown_table(scores_table(summary))]
    comparisons = comparison_tables(summary)
    if comparisons:
        parts += [f"## Compared with {_markdown(summary.baseline)}"]
        parts += [_markdown_table(one) for _, one in comparisons]
    parts += ["## Signs of collapse", _markdown_table(signs_table(summary))]
    if summary.sweep.lost:
        parts += ["## Jobs without a result", _markdown_table(lost_table(summary))]
    parts += ["## How to read this", _METHOD, *map(_markdown, notes(summary))]
    return "\n\n".join(parts) + "\n"


def html_report(summary: SweepSummary) -> str:
    """Returns the report as one HTML page that needs no network."""
    arms = summary.arms
    comparisons = comparison_tables(summary)
    accuracy = line_chart(
        "accuracy of a rollout (share of correct responses)",
        [
            (i, ArmCurves(arm=arm, seeds=tuple(r.accuracies for r in summary.sweep.of_arm(arm))))
            for i, arm in enumerate(arms)
        ],
    )
    sections = {
        "results": ("Results", [_html_table(scores_table(summary))]),
        "curves": ("Learning curves", [legend(arms), accuracy]),
        "comparisons": (
            f"Compared with {summary.baseline}",
            [_html_table(one) for _, one in comparisons]
            or [
                paragraph("No other arm has two seeds in common with the baseline.", kind="notice")
            ],
        ),
        "collapse": (
            "Signs of collapse",
            [_html_table(signs_table(summary)), legend(arms), _sign_charts(summary)],
        ),
        "jobs": ("Jobs", [details("Every finished run", _html_table(runs_table(summary)))]),
        "method": ("How to read this", [paragraph(_METHOD), *map(paragraph, notes(summary))]),
    }
    if summary.sweep.lost:
        sections["jobs"][1].insert(0, _html_table(lost_table(summary)))
    return page(
        f"Sweep {summary.sweep.name}",
        join(section(anchor, heading, *parts) for anchor, (heading, parts) in sections.items()),
        lead=lead(summary),
        contents={anchor: heading for anchor, (heading, _) in sections.items()},
        style=_STYLE,
    )


def _sign_charts(summary: SweepSummary) -> Markup:
    charts = []
    for sign, column in COLLAPSE_SIGNS.items():
        arms = [
            (number, ArmCurves(arm=arm, seeds=curves))
            for number, arm in enumerate(summary.arms)
            if (
                curves := tuple(
                    run.curves[column] for run in summary.sweep.of_arm(arm) if column in run.curves
                )
            )
        ]
        if arms:
            charts.append(line_chart(f"{sign} ({column})", arms))
    return Markup('<div class="charts">{}</div>').format(join(charts))


def _html_table(text: TextTable) -> Markup:
    return table(text.caption, text.columns, text.rows)


def _markdown_table(text: TextTable) -> str:
    lines = [
        text.columns,
        tuple("---" for _ in text.columns),
        *text.rows,
    ]
    body = "\n".join("| " + " | ".join(map(_markdown, line)) + " |" for line in lines)
    return f"{_markdown(text.caption)}\n\n{body}"


def _markdown(text: str) -> str:
    """Text of a folder or an error stays text: no markup, no new line, no new cell."""
    text = " ".join(text.split())
    for character, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|")):
        text = text.replace(character, escaped)
    return text
