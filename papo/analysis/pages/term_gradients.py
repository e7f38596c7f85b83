"""The section of the run page about the terms: what each does to the weights, and what can do nothing."""

from papo.analysis.pages.run_curves import steps_of
from papo.reporting.charts import Series, line_chart
from papo.reporting.html import Markup, details, grid, join, paragraph, table
from papo.statistics import TERM_RULE, TermGradient, judge_terms
from papo.storage.training_run import TrainingRun

MOST_LINES = 4
"""Of a chart: the terms with the largest gradients."""


def term_gradients(run: TrainingRun) -> Markup:
    """Returns verdicts, charts and a table of the terms; nothing where no gradient was measured."""
    terms = judge_terms(run.metrics)
    if not terms:
        return Markup()
    accused = [f"{term.name}: {term.verdict}." for term in terms if not term.is_sound]
    said = [paragraph(text, kind="notice") for text in (*run.faults, *accused)]
    return join(
        [
            *(said or [paragraph("Nothing speaks against a term.")]),
            paragraph(f"Measured on a few prompts before every so many updates. {TERM_RULE}"),
            _charts(run, terms),
            details("The numbers", _numbers(terms)),
        ],
        "\n",
    )


def _charts(run: TrainingRun, terms: list[TermGradient]) -> Markup:
    leading = sorted(terms, key=lambda term: -max(term.summary("norm")[1:]))[:MOST_LINES]
    places = [
        place
        for place in range(len(steps_of(run)))
        if any(term.measures["norm"][place] == term.measures["norm"][place] for term in terms)
    ]
    steps = [steps_of(run)[place] for place in places]

    def lines(measure: str, *, over: str = "") -> list[Series]:
        found = []
        for term in leading:
            values, norms = term.measures.get(measure), term.measures["norm"]
            if values is not None and not (over and term.name not in over.split()):
                shown = [
                    values[place] / norms[place] if over and norms[place] else values[place]
                    for place in places
                ]
                found.append(Series(name=term.name, values=shown))
        return found

    charts = [
        line_chart("Norm of the gradient of weight × term", steps, lines("norm"), scale="auto")
    ]
    # Of the terms that say how a policy looks, how much of what they ask is asked of its eyes.
    if parts := lines("norm_vision", over="surrogate perception_kl"):
        charts.append(line_chart("Vision tower's part of the norm", steps, parts, is_percent=True))
    charts.append(
        line_chart(
            "Share of the pull of 1 % of the tokens", steps, lines("top_share"), is_percent=True
        )
    )
    return grid(charts)


def _numbers(terms: list[TermGradient]) -> Markup:
    return table(
        "Each term by itself: first, median and last measure",
        ["term", "measure", "first", "median", "last"],
        [
            [
                term.name,
                measure.replace("_", " "),
                *(f"{value:.3g}" for value in term.summary(measure)),
            ]
            for term in terms
            for measure in term.measures
        ],
    )
