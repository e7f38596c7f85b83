"""Writes down an audit of what a policy grounds: a row per benchmark (grounding.csv, .json) and a page (.html)."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from papo.evaluation.grounding_measures import COLUMNS, MEASURES, measured_text
from papo.evaluation.vision.grounding import Grounding, Measured
from papo.reporting.charts import Dot, Row, dot_chart
from papo.reporting.csv_text import csv_records
from papo.reporting.html import Markup, details, grid, join, page, paragraph, section, table
from papo.reporting.numbers import percent
from papo.storage.files import read_object, write_atomically, write_json

_LEAD = (
    "What each number is, and what it must not be read as, stands beside it. Intervals are 95 %, over problems: how far "
    "another draw of problems could move a number, not how far another training run could. "
    "Which of them follow real misreading was measured where the truth is known: docs/results/lab_grounding.md."
)
_VIEWS = {
    "accuracy": "picture",
    "accuracy_swapped": "another's",
    "accuracy_blank": "black",
    "accuracy_removed": "none",
}


def write_grounding(found: Sequence[Grounding], folder: Path) -> None:
    """Writes the row of every benchmark, and the page, into a folder that has the summary of the evaluation."""
    summary = read_object(
        folder / "summary.json",
        fields={"checkpoint": dict, "sets": list},
        remedy="Delete result.json: with resume=true the evaluation writes both again.",
    )
    labels = {one["benchmark"]: one["label"] for one in summary["sets"]}
    checkpoint = summary["checkpoint"]
    rows = [
        {
            "checkpoint": checkpoint["location"],
            "weights": checkpoint.get("weights"),
            "benchmark": one.benchmark,
            "label": labels[one.benchmark],
            **one.row(),
        }
        for one in found
    ]
    assert all(tuple(row) == COLUMNS for row in rows)
    write_json(
        folder / "grounding.json",
        [{**row, "notes": [*one.notes]} for row, one in zip(rows, found, strict=True)],
    )
    write_atomically(folder / "grounding.csv", csv_records(rows))
    write_atomically(folder / "grounding.html", grounding_page(found, rows))


def grounding_page(found: Sequence[Grounding], rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the page of an audit."""
    sections = [
        section(one.benchmark, row["label"], *_parts(one, row))
        for one, row in zip(found, rows, strict=True)
    ]
    first = rows[0]
    return page(
        "What the policy grounds",
        join([*sections, section("measures", "What the numbers are", _definitions())], "\n"),
        lead=f"{first['checkpoint']}, weights {first['weights']}. {_LEAD}",
        contents={
            **{one.benchmark: row["label"] for one, row in zip(found, rows, strict=True)},
            "measures": "What the numbers are",
        },
    )


def _parts(one: Grounding, row: Mapping[str, Any]) -> Iterator[Markup]:
    counts = one.counts
    yield paragraph(
        f"{counts['num_problems']} problems, {counts['num_responses']} responses to each; {counts['num_scored']} "
        "of them scored in every view."
    )
    for note in one.notes:
        yield paragraph(f"{note[0].upper()}{note[1:]}.", kind="notice")
    yield _accuracies(one)
    yield table(
        "Shares in per cent, points, and nats, with 95 % intervals over problems",
        ["number", "value", "column"],
        [
            (measure.label, measured_text(measure, row), measure.name)
            for measure in MEASURES
            if measure.name in one.measures
        ],
    )
    if counts["num_boxed"]:
        yield paragraph(_controls(counts))
    if one.tokens:
        yield details(
            "The tokens that carry most of the perception KL of own responses",
            table(
                "KL against a black picture, over the whole vocabulary",
                ["token", "count", "mean, nats", "share of all, %"],
                [
                    (repr(w.token), w.count, f"{w.mean_kl:.3g}", percent(w.share_of_kl))
                    for w in one.tokens
                ],
            ),
        )


def _controls(counts: Mapping[str, int | None]) -> str:
    used, needed = counts["num_controls"], counts["controls_needed"]
    text = (
        f"Evidence is compared with {used} controls a problem on {counts['num_boxed']} problems. "
    )
    if needed is None:
        return text + (
            "How many a stable margin needs could not be measured: one control, one problem, or problems that differ no "
            "more than controls do."
        )
    return text + (
        f"A margin that tells problems apart (reliability 0.9) needs {needed}"
        + (
            "."
            if used is not None and needed <= used
            else ": set audit.num_controls to it before you read single problems; the mean over problems needs fewer."
        )
    )


def _accuracies(one: Grounding) -> Markup:
    rows = [
        Row(name=name, dots=[_dot(one.measures[measure])])
        for measure, name in _VIEWS.items()
        if measure in one.measures
    ]
    chart = dot_chart(
        "Accuracy by what is shown",
        rows,
        [one.benchmark],
        along="%, 95 % intervals",
        reach=(0, 100),
    )
    return grid([chart], kind="few")


def _dot(found: Measured) -> Dot:
    narrow = (
        None if found.low is None or found.high is None else (100 * found.low, 100 * found.high)
    )
    return Dot(value=100 * found.value, narrow=narrow)


def _definitions() -> Markup:
    return table(
        "Every column of grounding.csv with an interval",
        ["column", "what it is", "what it cannot say"],
        [
            (one.name, one.says, f"{one.cannot_say[0].upper()}{one.cannot_say[1:]}.")
            for one in MEASURES
        ],
    )
