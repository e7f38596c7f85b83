"""Writes the report of a sweep: report.csv, runs.csv, report.md and report.html."""

import re
from collections.abc import Sequence
from pathlib import Path

from papo.analysis.sweeps.cells import published_rows
from papo.analysis.sweeps.comparison import SweepSummary
from papo.analysis.sweeps.curves import (
    curves_at_equal_cost,
    drawn_arms,
    learning_curves,
    sign_charts,
)
from papo.analysis.sweeps.document import Section, glance, to_markdown, to_page
from papo.analysis.sweeps.measures import equal_costs
from papo.analysis.sweeps.tables import (
    TextTable,
    comparison_tables,
    cost_table,
    csv_rows,
    differences_table,
    lost_table,
    runs_table,
    scores_table,
    signs_table,
    tenths_tables,
)
from papo.reporting.csv_text import csv_records, csv_text
from papo.reporting.html import grid
from papo.storage.files import write_atomically
from papo.storage.sweep_runs import Sweep

_METHOD = (
    "Every finished job is one number per measure. Means over seeds carry the 95 % interval of Student's "
    "t; a single seed, and seeds that agree, have none. Arms are compared with the baseline over the seeds both have, by a paired t test; q is p adjusted "
    "over the arms of one measure (Benjamini and Hochberg). The smallest difference found with 80 % power "
    "(two-sided test at 5 %, noncentral t) follows from the spread of the paired differences: a true effect "
    "below it is likely to be missed. "
    "An arm chosen because it looks best here has to be confirmed on fresh seeds."
)


def write_report(summary: SweepSummary, folder: Path) -> tuple[Path, ...]:
    """Writes all files of the report into a folder and returns their paths, the page last."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = runs_table(summary)
    texts = {
        "report.csv": csv_records(csv_rows(summary)),
        "runs.csv": csv_text([runs.columns, *runs.rows]),
        "report.md": markdown_report(summary),
        "report.html": html_report(summary),
    }
    for name, text in texts.items():
        write_atomically(folder / name, text)
    return tuple(folder / name for name in texts)


def lead(summary: SweepSummary) -> str:
    """Returns what was run, in a sentence or two."""
    return lead_of([summary.sweep], arms=summary.arms, baseline=summary.baseline)


def lead_of(
    sweeps: Sequence[Sweep], *, arms: Sequence[str], baseline: str, starts: str = ""
) -> str:
    """Returns what was run of one sweep, or of one from several `starts`, which are named in words."""
    seeds = sorted({run.seed for sweep in sweeps for run in sweep.runs})
    text = (
        f"{sum(len(sweep.runs) for sweep in sweeps)} finished jobs{starts}: {len(arms)} arms, seeds "
        f"{', '.join(map(str, seeds))}, {len(sweeps[0].runs[0].accuracies)} rollouts each. "
        f"Baseline: {baseline}."
    )
    if lost := sum(len(sweep.lost) for sweep in sweeps):
        text += f" {lost} more jobs have no result and are listed."
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
    if costs := equal_costs(summary.sweep):
        found.append(cost_note(min(costs.values()), max(costs.values())))
    return found


def cost_note(fewest: float, most: float) -> str:
    """Returns what "the first N drawn responses" means, where N is from `fewest` to `most`."""
    number = f"{fewest:.0f}" if fewest == most else f"{fewest:.0f} to {most:.0f}"
    return (
        "Equal sampling cost: dynamic sampling draws extra responses, so an arm that has it spends more "
        f"in as many rollouts. The first N drawn responses are as many as the cheapest arm drew with the "
        f"same seed (N = {number}), counted in every arm from its start, dropped groups included. The "
        "held-out measures are taken after all rollouts and are not at equal cost."
    )


def markdown_report(summary: SweepSummary) -> str:
    """Returns the report as Markdown."""
    return to_markdown(f"Sweep {summary.sweep.name}", lead(summary), _sections(summary))


def html_report(summary: SweepSummary) -> str:
    """Returns the report as one HTML page that needs no network."""
    return to_page(f"Sweep {summary.sweep.name}", lead(summary), _sections(summary))


def _sections(summary: SweepSummary) -> list[Section]:
    comparisons = comparison_tables(summary)
    by_cost = curves_at_equal_cost(summary) if equal_costs(summary.sweep) else []
    sections = [
        *glance(csv_rows(summary), summary.measures, published=published_differences(summary)),
        Section(anchor="results", heading="Results", parts=[scores_table(summary)]),
        Section(
            anchor="curves",
            heading="Learning curves",
            parts=[
                "Accuracy of the rollouts: mean over seeds with its 95 % t interval, beside the baseline.",
                grid(learning_curves(summary), kind="many"),
            ],
            more=[
                *([grid(by_cost, kind="many")] if by_cost else []),
                *tenths_tables(summary),
            ],
            folded="By tenths of the rollouts"
            + (", and at equal sampling cost" if by_cost else ""),
        ),
        Section(
            anchor="comparisons",
            heading=f"Compared with {summary.baseline}",
            parts=[
                differences_table(summary),
                *(
                    []
                    if comparisons
                    else ["No other arm has two seeds in common with the baseline."]
                ),
            ],
            more=comparisons,
            folded="The tests, measure by measure",
        ),
        Section(anchor="cost", heading="Cost and stability", parts=[cost_table(summary)]),
        Section(
            anchor="collapse",
            heading="Collapse",
            parts=[signs_table(summary)],
            more=[
                f"Means over seeds of {', '.join(drawn_arms(summary))}: the baseline and the arms nearest to a collapse.",
                grid(sign_charts(summary)),
            ],
            folded="The curves beside the verdict",
        ),
    ]
    lost = [lost_table(summary)] if summary.sweep.lost else []
    return [*sections, *last_sections(lost, runs_table(summary), [_METHOD, *notes(summary)])]


def last_sections(
    lost: Sequence[TextTable], runs: TextTable, method: Sequence[str]
) -> list[Section]:
    """Returns what every report ends with: jobs without a result, the runs, and how to read them."""
    found = [Section(anchor="lost", heading="Jobs without a result", parts=lost)] if lost else []
    return [
        *found,
        Section(
            anchor="jobs",
            heading="Jobs",
            more=[runs],
            folded="Every finished run",
            in_markdown=False,
        ),
        Section(anchor="method", heading="How to read this", parts=method),
    ]


def published_differences(summary: SweepSummary) -> dict[str, float]:
    """Returns arm -> published overall accuracy minus the baseline's, in points, where one table has both of one model."""
    of_baseline = _published_overall(summary, summary.baseline)
    found = {}
    for arm in summary.arms:
        common = [
            value - of_baseline[model]
            for model, value in _published_overall(summary, arm).items()
            if model in of_baseline
        ]
        if common and arm != summary.baseline:
            found[arm] = common[0]
    return found


def _published_overall(summary: SweepSummary, arm: str) -> dict[tuple[str, str], float]:
    """Table and size of the model -> overall accuracy; only the names of rows say the size, "grpo_7b"."""
    found = {}
    for row, averages in published_rows(summary, arm).items():
        table, _, name = row.rpartition(" ")
        size = re.search(r"(_qwen3_vl)?_\d+b$", name)
        if (value := averages["overall"]) is not None:
            found[table, size[0] if size else ""] = value
    return found
