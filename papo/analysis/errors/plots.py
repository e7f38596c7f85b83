"""The two charts of an error analysis: shares of errors per run, and what became of each error."""

from papo.analysis.errors.shares import Share
from papo.analysis.errors.summary import ErrorSummary
from papo.analysis.errors.tables import category_name
from papo.analysis.errors.taxonomy import ERROR_CATEGORIES, ErrorCategory
from papo.analysis.errors.transitions import Transitions
from papo.reporting.charts import Chart, Dot, Row, bar_chart, dot_chart

COLOURS = dict(zip(ErrorCategory, (3, 2, 4, 1, 6, 7, 5, 6), strict=True))
"""Category -> colour of the page."""


def share_chart(summary: ErrorSummary, labeller: str) -> Chart | None:
    """Returns the share of each kind of error per run, the paper's perception errors beside; None without labels."""
    found = {
        run: of_run.shares
        for run, of_run in summary.labellers[labeller].runs.items()
        if of_run.labelled
    }
    used = [c for c in ERROR_CATEGORIES if any(shares[c].count for shares in found.values())]
    if not used:
        return None
    paper = summary.published.perception
    published = Dot(value=100 * paper.value, narrow=(100 * paper.low, 100 * paper.high))
    rows = [
        Row(
            name=category_name(category),
            dots=[
                *(_dot(shares[category]) for shares in found.values()),
                published if category is ErrorCategory.PERCEPTION else None,
            ],
        )
        for category in used
    ]
    return dot_chart(
        f"Errors of the wrong answers, labelled by {labeller}",
        rows,
        [*found, "the paper (another model and data)"],
        along="% of the wrong answers, 95 % intervals",
        reach=(0, 100),
    )


def _dot(one: Share) -> Dot:
    found = one.wilson
    return Dot(value=100 * found.value, narrow=(100 * found.low, 100 * found.high))


def transition_chart(one: Transitions) -> Chart:
    """Returns a bar per category of the first run, cut by what the same response slots became in the second."""
    rows = [
        (f"{category_name(before)} ({sum(lengths)})", lengths)
        for before in ErrorCategory
        if sum(lengths := [one.counts.get((before, after), 0) for after in ErrorCategory])
    ]
    return bar_chart(
        f"What {one.before} got so, and what became of it in {one.after}, labelled by {one.labeller}",
        rows,
        [(category_name(after), COLOURS[after]) for after in ErrorCategory],
        along="response slots",
    )
