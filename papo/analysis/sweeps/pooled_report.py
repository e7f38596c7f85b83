"""Writes the report of one sweep from several starts: pooled.csv, report.csv, runs.csv, report.md, report.html."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from papo.analysis.sweeps.cells import (
    count_cell,
    interval_ends,
    mean_cell,
    points,
    tested_cells,
    tested_values,
)
from papo.analysis.sweeps.comparison import Tested
from papo.analysis.sweeps.curves import learning_curves
from papo.analysis.sweeps.document import Part, Section, glance, to_markdown, to_page
from papo.analysis.sweeps.measures import (
    DIFFERENCE_OF_SHARES,
    bounds_of,
    equal_costs,
    measure_name,
)
from papo.analysis.sweeps.pooling import PooledComparison, PooledSummary, mean_over_starts
from papo.analysis.sweeps.report import cost_note, last_sections, lead_of
from papo.analysis.sweeps.tables import (
    TextTable,
    csv_rows,
    differences_at_a_glance,
    differences_table,
    heading_with_unit,
    lost_table,
    runs_table,
    scores_table,
    signs_table,
    tenths_tables,
)
from papo.reporting.csv_text import csv_records, csv_text
from papo.reporting.html import grid, heading
from papo.statistics import Interval, paired_t_within_starts, t_interval
from papo.storage.files import write_atomically

_METHOD = (
    "Every finished job is one number per measure, and arms are compared with the baseline over the seeds "
    "that both have in the same start. The mean difference is the mean of the starts' mean differences, so "
    "that every start counts alike.",
    "Over starts: Student's t over the starts' mean differences, with one degree of freedom less than there "
    "are starts. It answers whether other starts would show the difference, and is wide with few starts, "
    "however many the seeds. What a seed does in all starts alike is not in it.",
    "Within these starts: Student's t over seeds of the mean over starts; the starts are fixed. It answers "
    "whether other seeds of the same starts would show the difference, and says nothing of other starts. "
    "Where starts do not have the same seeds, a seed's deviations are added over the starts that have it, "
    "and the degrees of freedom are those of the start with the fewest seeds.",
    "q is p adjusted over the arms of one measure and one test (Benjamini and Hochberg). The smallest "
    "difference found with 80 % power (two-sided test at 5 %, noncentral t) follows from the spread seen: a "
    "true effect below it is likely to be missed. The interval of collapsed runs is Wilson's and takes runs "
    "for independent.",
)


def write_pooled_report(pooled: PooledSummary, folder: Path) -> tuple[Path, ...]:
    """Writes all files of the report into a folder and returns their paths, the page last."""
    folder.mkdir(parents=True, exist_ok=True)
    starts = [
        {"start": name, **row} for name, each in pooled.starts.items() for row in csv_rows(each)
    ]
    differences = _pooled_rows(pooled)
    runs = _runs_table(pooled)
    title = f"Sweep {_name(pooled)} from {len(pooled.starts)} starts"
    sections = _sections(pooled, differences)
    texts = {
        "pooled.csv": csv_records(differences),
        "report.csv": csv_records(starts),
        "runs.csv": csv_text([runs.columns, *runs.rows]),
        "report.md": to_markdown(title, pooled_lead(pooled), sections),
        "report.html": to_page(title, pooled_lead(pooled), sections),
    }
    for name, text in texts.items():
        write_atomically(folder / name, text)
    return tuple(folder / name for name in texts)


def pooled_lead(pooled: PooledSummary) -> str:
    """Returns what was run, in a sentence or two."""
    return lead_of(
        [each.sweep for each in pooled.starts.values()],
        arms=pooled.arms,
        baseline=pooled.baseline,
        starts=f" from {len(pooled.starts)} starts ({', '.join(pooled.starts)})",
    )


def over_starts_table(pooled: PooledSummary) -> TextTable:
    """Arms by measures: mean over starts, with the interval over starts."""

    return _glance(
        pooled,
        partial(_mean_over_starts, pooled, pooled.baseline),
        lambda comparison: comparison.over_starts,
        f"mean of {len(pooled.starts)} starts [95 % t interval over starts]",
    )


def within_starts_table(pooled: PooledSummary) -> TextTable:
    """Arms by measures: mean over starts, with the interval over the seeds of these starts."""

    def baseline(measure: str) -> str:
        scores = [each.scores[pooled.baseline].get(measure) for each in pooled.starts.values()]
        values = [score.values for score in scores if score is not None]
        if not values or any(len(each) < 2 for each in values):
            return ""
        found = paired_t_within_starts(values, bounds=bounds_of(measure))
        return mean_cell(measure, found.value, found.interval, number=found.number)

    return _glance(
        pooled,
        baseline,
        lambda comparison: comparison.within_starts,
        f"mean of {len(pooled.starts)} starts [95 % t interval over seeds, within these starts]",
    )


def measure_tables(pooled: PooledSummary) -> list[TextTable]:
    """One table per measure: the difference in each start, over starts and within these starts."""
    tables = []
    for measure in (*pooled.measures, *pooled.cost_and_stability):
        rows = tuple(
            (arm, *_comparison_cells(pooled, comparisons[measure]))
            for arm, comparisons in pooled.comparisons.items()
            if measure in comparisons
        )
        if rows:
            tables.append(
                TextTable(
                    caption=f"{measure_name(measure)}: points more than {pooled.baseline}, paired by "
                    "start and seed [95 % t intervals]; found: smallest difference found with 80 % "
                    "power",
                    columns=(
                        *("arm", *pooled.starts),
                        *("mean [over starts]", "p", "q", "found"),
                        *("mean [within these starts]", "p", "q", "found"),
                    ),
                    rows=rows,
                )
            )
    return tables


def pooled_cost_table(pooled: PooledSummary) -> TextTable:
    """What the runs of an arm cost, and how many collapsed, in each start and in all."""

    def in_start(start: str, arm: str) -> str:
        signs = pooled.starts[start].signs.get(arm)
        return "" if signs is None else f"{len(signs.collapsed)} of {signs.num_runs}"

    return TextTable(
        caption="Collapsed runs of all starts [95 % Wilson interval, per cent] and of each; others: mean "
        "over starts [95 % t interval over starts]",
        columns=(
            *("arm", "collapsed runs", *(f"collapsed, {start}" for start in pooled.starts)),
            *map(heading_with_unit, pooled.cost_and_stability),
        ),
        rows=tuple(
            (
                arm,
                count_cell(*pooled.collapsed(arm)),
                *(in_start(start, arm) for start in pooled.starts),
                *(_mean_over_starts(pooled, arm, name) for name in pooled.cost_and_stability),
            )
            for arm in pooled.arms
        ),
    )


def _sections(pooled: PooledSummary, differences: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Of the rows of pooled.csv, and of what they come from."""
    curves: list[Part] = []
    for start, each in pooled.starts.items():
        curves += [heading(start), grid(learning_curves(each), kind="many")]
    lost = [_of(start, lost_table(s)) for start, s in pooled.starts.items() if s.sweep.lost]
    return [
        *glance(differences, pooled.measures),
        Section(
            anchor="over-starts",
            heading="Over starts",
            parts=[
                "Would other starts show the difference? The starts are the units.",
                over_starts_table(pooled),
            ],
        ),
        Section(
            anchor="within-starts",
            heading="Within these starts",
            parts=[
                "Is the difference there in these starts, whatever the seed? The seeds are the units.",
                within_starts_table(pooled),
            ],
        ),
        Section(
            anchor="starts",
            heading="Each start",
            parts=[
                part
                for start, each in pooled.starts.items()
                for part in (_of(start, scores_table(each)), _of(start, differences_table(each)))
            ],
        ),
        Section(
            anchor="curves",
            heading="Learning curves",
            parts=curves,
            more=[_of(start, t) for start, s in pooled.starts.items() for t in tenths_tables(s)],
            folded="By tenths of the rollouts",
        ),
        Section(anchor="cost", heading="Cost and stability", parts=[pooled_cost_table(pooled)]),
        Section(
            anchor="measures",
            heading="Measure by measure",
            more=list(measure_tables(pooled)),
            folded="Differences in each start, and their tests",
        ),
        Section(
            anchor="collapse",
            heading="Collapse",
            parts=[_of(start, signs_table(each)) for start, each in pooled.starts.items()],
        ),
        *last_sections(lost, _runs_table(pooled), [*_METHOD, *_notes(pooled)]),
    ]


def _notes(pooled: PooledSummary) -> list[str]:
    commits = sorted(
        {run.commit or "unknown" for each in pooled.starts.values() for run in each.sweep.runs}
    )
    found = [f"Commits of the source: {', '.join(commits)}."]
    costs = [n for each in pooled.starts.values() for n in equal_costs(each.sweep).values()]
    if costs:
        found.append(cost_note(min(costs), max(costs)))
    return found


def _glance(
    pooled: PooledSummary,
    baseline: Callable[[str], str],
    tested: Callable[[PooledComparison], Tested | None],
    caption: str,
) -> TextTable:
    return differences_at_a_glance(
        pooled.baseline,
        pooled.measures,
        baseline={measure: baseline(measure) for measure in pooled.measures},
        differences={
            arm: {
                measure: (one.difference, one.q_value)
                for measure, comparison in of_arm.items()
                if (one := tested(comparison)) is not None
            }
            for arm, of_arm in pooled.comparisons.items()
        },
        caption=caption,
    )


def _comparison_cells(pooled: PooledSummary, comparison: PooledComparison) -> list[str]:
    cells = []
    for start in pooled.starts:
        differences = list(comparison.differences.get(start, {}).values())
        if not differences:
            cells.append("")
            continue
        number = len(differences)
        interval = t_interval(differences, bounds=DIFFERENCE_OF_SHARES)
        cells.append(points(sum(differences) / number, interval, number=number))
    for tested in (comparison.over_starts, comparison.within_starts):
        cells += [""] * 4 if tested is None else tested_cells(tested)
    return cells


def _pooled_rows(pooled: PooledSummary) -> list[dict[str, Any]]:
    """One row per arm and measure; shares between 0 and 1."""
    rows = []
    for arm in pooled.arms:
        _, total, share = pooled.collapsed(arm)
        collapsed = {"measure": "collapsed", "num_runs": total, "mean": share.value}
        rows.append(_row(pooled, arm, collapsed, share, None))
        for measure in (*pooled.measures, *pooled.cost_and_stability):
            means = list(pooled.start_means(arm, measure).values())
            if means:
                mean, interval = mean_over_starts(measure, means)
                runs = sum(
                    len(each.scores.get(arm, {})[measure].values)
                    for each in pooled.starts.values()
                    if measure in each.scores.get(arm, {})
                )
                values = {"measure": measure, "num_runs": runs, "mean": mean}
                comparison = pooled.comparisons[arm].get(measure)
                rows.append(_row(pooled, arm, values, interval, comparison))
    return rows


def _row(
    pooled: PooledSummary,
    arm: str,
    values: dict[str, Any],
    interval: Interval | None,
    comparison: PooledComparison | None,
) -> dict[str, Any]:
    row = {
        "sweep": _name(pooled),
        "arm": arm,
        **values,
        **dict(zip(("low", "high"), interval_ends(interval), strict=True)),
        "baseline": pooled.baseline if comparison else "",
        "common_starts": len(comparison.differences) if comparison else "",
        "difference": comparison.over_starts.difference.value if comparison else "",
    }
    tests = {
        "over_starts": comparison.over_starts if comparison else None,
        "within_starts": comparison.within_starts if comparison else None,
    }
    for name, tested in tests.items():
        names = (f"{name}_{what}" for what in ("low", "high", "p", "q", "detectable"))
        row |= zip(names, tested_values(tested), strict=True)
    return row


def _runs_table(pooled: PooledSummary) -> TextTable:
    """Every finished run of every start; starts may differ in what was measured."""
    tables = {start: runs_table(each) for start, each in pooled.starts.items()}
    columns = tuple(dict.fromkeys(c for each in tables.values() for c in each.columns))
    rows = tuple(
        (start, *(dict(zip(each.columns, row, strict=True)).get(c, "") for c in columns))
        for start, each in tables.items()
        for row in each.rows
    )
    caption = next(iter(tables.values())).caption
    return TextTable(caption=caption, columns=("start", *columns), rows=rows)


def _mean_over_starts(pooled: PooledSummary, arm: str, measure: str) -> str:
    means = list(pooled.start_means(arm, measure).values())
    if not means:
        return ""
    return mean_cell(measure, *mean_over_starts(measure, means), number=len(means))


def _of(start: str, text: TextTable) -> TextTable:
    return replace(text, caption=f"{start}. {text.caption}")


def _name(pooled: PooledSummary) -> str:
    names = dict.fromkeys(each.sweep.name for each in pooled.starts.values())
    return " + ".join(names)
