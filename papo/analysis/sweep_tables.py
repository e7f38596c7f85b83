"""The tables of a sweep's report, as cells of text: what CSV, Markdown and the page all show."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from papo.analysis.sweep_comparison import COLLAPSE_SIGNS, ArmScore, Comparison, SweepSummary
from papo.analysis.sweep_runs import PUBLISHED_AVERAGES
from papo.published import published_results

MEASURE_NAMES = {
    "accuracy_curve": "accuracy, mean over all rollouts",
    "accuracy_end": "accuracy, last tenth of the rollouts",
}


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


def measure_name(measure: str) -> str:
    """Returns what a measure is called in a heading."""
    return MEASURE_NAMES.get(measure, measure)


def scores_table(summary: SweepSummary) -> TextTable:
    """Arms by measures, the published averages of each arm's row beside."""
    with_published = any(summary.sweep.published.get(arm) for arm in summary.scores)
    rows = []
    for arm, scores in summary.scores.items():
        cells = [_score(scores[name]) if name in scores else "" for name in summary.measures]
        seeds = len(summary.sweep.of_arm(arm))
        published = [published_cell(summary, arm)] if with_published else []
        rows.append((arm, str(seeds), *cells, *published))
    return TextTable(
        caption="Per cent, mean over seeds [95 % t interval]. Published: general / vision / overall, "
        "avg@8, one run (arXiv:2507.06448v5)"
        if with_published
        else "Per cent, mean over seeds [95 % t interval]",
        columns=(
            "arm",
            "seeds",
            *map(measure_name, summary.measures),
            *(["published"] if with_published else []),
        ),
        rows=tuple(rows),
    )


def comparison_tables(summary: SweepSummary) -> list[tuple[str, TextTable]]:
    """One table per measure: every arm minus the baseline over common seeds."""
    tables = []
    for measure in summary.measures:
        rows = tuple(
            (arm, *_comparison(comparisons[measure]))
            for arm, comparisons in summary.comparisons.items()
            if measure in comparisons
        )
        if rows:
            caption = (
                f"{measure_name(measure)}: points more than {summary.baseline}, paired by seed"
            )
            tables.append(
                (
                    measure,
                    TextTable(
                        caption=caption,
                        columns=(
                            *("arm", "common seeds", "difference [95 %]", "p", "q"),
                            "smallest difference found with 80 % power",
                        ),
                        rows=rows,
                    ),
                )
            )
    return tables


def signs_table(summary: SweepSummary) -> TextTable:
    """Collapsed seeds, and what rises when a policy collapses."""
    names = [name for name in COLLAPSE_SIGNS if any(name in s.rise for s in summary.signs.values())]
    return TextTable(
        caption="Collapsed: seeds whose accuracy in the last tenth of the rollouts is below half of that "
        "in their best tenth. Others: first tenth, and highest tenth of the run, mean over seeds",
        columns=("arm", "collapsed", *names),
        rows=tuple(
            (
                arm,
                f"{len(signs.collapsed)} of {len(summary.sweep.of_arm(arm))}"
                + (f" (seeds {', '.join(map(str, signs.collapsed))})" if signs.collapsed else ""),
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
    return TextTable(
        caption="Per cent",
        columns=("folder", "arm", "seed", *map(measure_name, summary.measures)),
        rows=tuple(
            (
                run.folder,
                arm,
                str(run.seed),
                *(
                    f"{100 * run.scores[name]:.2f}" if name in run.scores else ""
                    for name in summary.measures
                ),
            )
            for arm in summary.scores
            for run in summary.sweep.of_arm(arm)
        ),
    )


def csv_rows(summary: SweepSummary) -> list[dict[str, Any]]:
    """One row per arm and measure; shares between 0 and 1, published values in per cent."""
    rows = []
    for arm, scores in summary.scores.items():
        for measure, score in scores.items():
            comparison = summary.comparisons[arm].get(measure)
            rows.append(
                {
                    "sweep": summary.sweep.name,
                    "arm": arm,
                    "measure": measure,
                    "num_seeds": len(score.values),
                    "mean": score.mean,
                    "low": score.interval.low if score.interval else "",
                    "high": score.interval.high if score.interval else "",
                    "baseline": summary.baseline if comparison else "",
                    **_comparison_cells(comparison),
                    "published": "; ".join(
                        f"{name}: {value}"
                        for name, row in published_rows(summary, arm).items()
                        if (value := row.get(measure)) is not None
                    ),
                }
            )
    return rows


def published_rows(summary: SweepSummary, arm: str) -> dict[str, Mapping[str, float | None]]:
    """The published averages of an arm: row -> general, vision and overall in per cent."""
    return {
        " ".join(path.split("/")[1:]): _published_row(path)
        for path in summary.sweep.published.get(arm, ())
    }


def published_cell(summary: SweepSummary, arm: str) -> str:
    """The published averages of an arm as text; empty where there are none."""
    rows = published_rows(summary, arm)
    return "; ".join(
        f"{name}: "
        + " / ".join("–" if row[a] is None else f"{row[a]:.2f}" for a in PUBLISHED_AVERAGES)
        for name, row in rows.items()
    )


def _published_row(path: str) -> dict[str, float | None]:
    node: Any = published_results()
    for part in path.split("/"):
        keys = {str(key): key for key in node} if isinstance(node, Mapping) else {}
        if part not in keys:
            raise ValueError(f"papo/published.yaml has no row {path!r}; check sweep.published")
        node = node[keys[part]]
    if isinstance(node, Mapping):
        return {name: node[name] for name in PUBLISHED_AVERAGES}
    return dict(zip(PUBLISHED_AVERAGES, node, strict=True))


def _score(score: ArmScore) -> str:
    mean = f"{100 * score.mean:.1f}"
    if score.interval is None:
        return mean
    return f"{mean} [{100 * score.interval.low:.1f}, {100 * score.interval.high:.1f}]"


def _comparison(comparison: Comparison) -> tuple[str, ...]:
    interval = comparison.difference.interval
    return (
        str(len(comparison.seeds)),
        f"{100 * interval.value:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]",
        _probability(comparison.difference.p_value),
        _probability(comparison.q_value),
        f"{100 * comparison.detectable:.1f}",
    )


def _probability(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _comparison_cells(comparison: Comparison | None) -> dict[str, Any]:
    names = (
        "common_seeds",
        "difference",
        "difference_low",
        "difference_high",
        "p",
        "q",
        "detectable",
    )
    if comparison is None:
        return dict.fromkeys(names, "")
    interval = comparison.difference.interval
    values = (
        len(comparison.seeds),
        *(interval.value, interval.low, interval.high),
        *(comparison.difference.p_value, comparison.q_value, comparison.detectable),
    )
    return dict(zip(names, values, strict=True))
