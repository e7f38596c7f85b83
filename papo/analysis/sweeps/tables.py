"""The tables of a sweep's report, as cells of text: what CSV, Markdown and the page all show."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from papo.analysis.sweeps.cells import (
    collapsed_cell,
    interval_ends,
    published_cell,
    published_rows,
    score_cell,
    starred_cell,
    tested_cells,
    tested_values,
)
from papo.analysis.sweeps.comparison import Signs, SweepSummary
from papo.analysis.sweeps.measures import measure_name, unit_of, value_text
from papo.analysis.watched_curves import WATCHED
from papo.statistics import COLLAPSE_RULE, MeanDifference


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTable:
    """A table of text.

    Attributes:
        caption: what the numbers are, units included.
        columns: headings.
        rows: as many cells as columns.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def scores_table(summary: SweepSummary) -> TextTable:
    """Arms by measures, the published averages of each arm's row beside."""
    with_published = any(summary.sweep.published.get(arm) for arm in summary.scores)
    rows = []
    for arm, scores in summary.scores.items():
        cells = [score_cell(name, scores.get(name)) for name in summary.measures]
        signs = summary.signs[arm]
        published = [published_cell(summary, arm)] if with_published else []
        rows.append((arm, str(signs.num_runs), collapsed_cell(signs), *cells, *published))
    caption = "Per cent, mean over seeds [95 % t interval]; collapsed runs [95 % Wilson interval]"
    if with_published:
        caption += ". Published: general / vision / overall, avg@8, one run (arXiv:2507.06448v5)"
    return TextTable(
        caption=caption,
        columns=(
            *("arm", "seeds", "collapsed runs"),
            *map(measure_name, summary.measures),
            *(["published"] if with_published else []),
        ),
        rows=tuple(rows),
    )


def cost_table(summary: SweepSummary) -> TextTable:
    """What the runs of an arm cost, and how sound its policies were."""
    return TextTable(
        caption="Mean over seeds [95 % t interval]; collapsed runs [95 % Wilson interval, per cent]",
        columns=(
            *("arm", "collapsed runs"),
            *map(heading_with_unit, summary.cost_and_stability),
        ),
        rows=tuple(
            (
                arm,
                collapsed_cell(summary.signs[arm]),
                *(score_cell(name, scores.get(name)) for name in summary.cost_and_stability),
            )
            for arm, scores in summary.scores.items()
        ),
    )


def heading_with_unit(measure: str) -> str:
    """Returns what a measure is called where the measures of a table differ in their units."""
    unit = {"share": " (per cent)", "responses": "", "nats": " (nats)"}[unit_of(measure)]
    return measure_name(measure) + unit


def differences_table(summary: SweepSummary) -> TextTable:
    """Arms by measures: the baseline itself, and the others minus it."""
    return differences_at_a_glance(
        summary.baseline,
        summary.measures,
        baseline={
            name: score_cell(name, s) for name, s in summary.scores[summary.baseline].items()
        },
        differences={
            arm: {name: (c.difference, c.q_value) for name, c in of_arm.items()}
            for arm, of_arm in summary.comparisons.items()
        },
        caption="paired by seed [95 % t interval]",
    )


def differences_at_a_glance(
    baseline_name: str,
    measures: Sequence[str],
    *,
    baseline: Mapping[str, str],
    differences: Mapping[str, Mapping[str, tuple[MeanDifference, float]]],
    caption: str,
) -> TextTable:
    """Returns arms by measures: the baseline itself in its row, the others as differences from it.

    Args:
        baseline_name: the arm of the first row.
        measures: the columns.
        baseline: measure -> the baseline's cell.
        differences: arm -> measure -> (difference, q-value).
        caption: how the differences were paired and what their intervals are.
    """
    rows = [(f"{baseline_name}, itself", *(baseline.get(name, "") for name in measures))]
    rows += [
        (
            arm,
            *(starred_cell(*of_arm[name]) if name in of_arm else "" for name in measures),
        )
        for arm, of_arm in differences.items()
        if arm != baseline_name
    ]
    return TextTable(
        caption=f"{baseline_name} in per cent; the others in points more than {baseline_name}, "
        f"{caption}. *: q < 0.05 over the arms of a column",
        columns=("arm", *map(measure_name, measures)),
        rows=tuple(rows),
    )


def comparison_tables(summary: SweepSummary) -> list[TextTable]:
    """One table per measure: every arm minus the baseline over common seeds."""
    tables = []
    for measure in (*summary.measures, *summary.cost_and_stability):
        rows = tuple(
            (arm, str(found.difference.number), *tested_cells(found))
            for arm, comparisons in summary.comparisons.items()
            if (found := comparisons.get(measure))
        )
        if rows:
            caption = (
                f"{measure_name(measure)}: points more than {summary.baseline}, paired by seed"
            )
            columns = (
                *("arm", "common seeds", "difference [95 %]", "p", "q"),
                "smallest difference found with 80 % power",
            )
            tables.append(TextTable(caption=caption, columns=columns, rows=rows))
    return tables


def signs_table(summary: SweepSummary) -> TextTable:
    """Which seeds collapsed and when, and the curves that are looked at beside the verdict."""
    names = [name for name in WATCHED if any(name in s.rise for s in summary.signs.values())]
    return TextTable(
        caption=f"{COLLAPSE_RULE} Others: first tenth, and highest tenth of the run, mean over seeds",
        columns=("arm", "collapsed", *names),
        rows=tuple(
            (
                arm,
                _collapsed_seeds(signs),
                *(
                    f"{signs.rise[name][0]:.3g} → {signs.rise[name][1]:.3g}"
                    if name in signs.rise
                    else ""
                    for name in names
                ),
            )
            for arm, signs in summary.signs.items()
        ),
    )


def _collapsed_seeds(signs: Signs) -> str:
    when = [f"{seed} at {found.rollout}" for seed, found in signs.verdicts.items() if found]
    seeds = f" (seed at rollout: {', '.join(when)})" if when else ""
    return f"{len(when)} of {signs.num_runs}{seeds}"


def tenths_tables(summary: SweepSummary) -> list[TextTable]:
    """Accuracy and, where an arm has it, perception KL by tenths of the run: means over seeds.

    A run of fewer than ten rollouts has as many columns as rollouts.
    """
    accuracies = {
        arm: [run.accuracies for run in summary.sweep.of_arm(arm)] for arm in summary.arms
    }
    column = WATCHED["perception KL"].column
    perception = {
        arm: [run.curves[column] for run in summary.sweep.of_arm(arm) if column in run.curves]
        for arm in summary.arms
    }
    tables = [
        _tenths_table(
            accuracies,
            "Accuracy of the drawn responses by tenths of the rollouts, per cent, mean over seeds",
            lambda value: f"{100 * value:.0f}",
        )
    ]
    if any(perception.values()):
        tables.append(
            _tenths_table(
                perception,
                "Perception KL by tenths of the rollouts, nats per token, mean over seeds",
                lambda value: f"{value:.3g}",
            )
        )
    return tables


def _tenths_table(
    curves: Mapping[str, Sequence[Sequence[float]]], caption: str, cell: Callable[[float], str]
) -> TextTable:
    means = {arm: np.mean(each, axis=0) for arm, each in curves.items() if each}
    count = min(10, len(next(iter(means.values()))))
    return TextTable(
        caption=caption,
        columns=("arm", *(str(1 + part) for part in range(count))),
        rows=tuple(
            (arm, *(cell(float(part.mean())) for part in np.array_split(mean, count)))
            for arm, mean in means.items()
        ),
    )


def lost_table(summary: SweepSummary) -> TextTable:
    """The jobs without a result."""
    return TextTable(
        caption="Jobs without a result; no number on this page counts them",
        columns=("arm", "seed", "status", "why", "folder"),
        rows=tuple(
            (job.arm, "" if job.seed is None else str(job.seed), job.status, job.reason, job.folder)
            for job in summary.sweep.lost
        ),
    )


def runs_table(summary: SweepSummary) -> TextTable:
    """Every finished run with its measures, in per cent."""
    measures = (*summary.measures, *summary.cost_and_stability)
    return TextTable(
        caption="Per cent; responses; perception KL in nats",
        columns=(
            *("folder", "arm", "seed", "collapsed", "collapsed at rollout"),
            *map(measure_name, measures),
        ),
        rows=tuple(
            (
                run.folder,
                arm,
                str(run.seed),
                "yes" if summary.signs[arm].verdicts[run.seed] else "no",
                str(summary.signs[arm].verdicts[run.seed].rollout or ""),
                *(
                    value_text(name, run.scores[name], decimals=2) if name in run.scores else ""
                    for name in measures
                ),
            )
            for arm in summary.scores
            for run in summary.sweep.of_arm(arm)
        ),
    )


_TESTED = ("difference_low", "difference_high", "p", "q", "detectable")


def csv_rows(summary: SweepSummary) -> list[dict[str, Any]]:
    """One row per arm and measure; shares between 0 and 1, published values in per cent.

    The measure "collapsed" is the share of the runs that did; its interval is Wilson's, the others'
    Student's.
    """
    rows = []
    for arm, scores in summary.scores.items():
        shares = summary.signs[arm].collapsed_share
        collapsed = ("collapsed", shares.value, shares, summary.signs[arm].num_runs)
        found = [
            (name, scores[name].mean, scores[name].interval, len(scores[name].values))
            for name in (*summary.measures, *summary.cost_and_stability)
            if name in scores
        ]
        for measure, mean, interval, num_seeds in (collapsed, *found):
            comparison = summary.comparisons[arm].get(measure)
            rows.append(
                {
                    "sweep": summary.sweep.name,
                    "arm": arm,
                    "measure": measure,
                    "unit": unit_of(measure),
                    "num_seeds": num_seeds,
                    "mean": mean,
                    **dict(zip(("low", "high"), interval_ends(interval), strict=True)),
                    "baseline": summary.baseline if comparison else "",
                    "common_seeds": comparison.difference.number if comparison else "",
                    "difference": comparison.difference.value if comparison else "",
                    **dict(zip(_TESTED, tested_values(comparison), strict=True)),
                    "published": "; ".join(
                        f"{name}: {value}"
                        for name, row in published_rows(summary, arm).items()
                        if (value := row.get(measure)) is not None
                    ),
                }
            )
    return rows
