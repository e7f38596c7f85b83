"""report.html of an error analysis: one file with charts, tables and the cases themselves."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from papo.analysis.errors.analysis import LabelledSample
from papo.analysis.errors.misreading_report import (
    GUESSED,
    confusion_table,
    fact_table,
    misreading_sentences,
    side_table,
)
from papo.analysis.errors.misreadings import RunReadings, example_misreadings
from papo.analysis.errors.plots import share_chart, transition_chart
from papo.analysis.errors.summary import ErrorSummary
from papo.analysis.errors.tables import (
    REGRESSION,
    Table,
    agreement_table,
    asked_sentences,
    category_name,
    headline_sentences,
    labeller_notes,
    paper_table,
    share_table,
    transition_sentences,
    transition_table,
)
from papo.analysis.errors.taxonomy import DEFINITIONS, ERROR_CATEGORIES, Case, ErrorLabel
from papo.analysis.errors.transitions import Transitions
from papo.reporting.html import (
    Cell,
    Markup,
    data_uri,
    details,
    grid,
    join,
    page,
    paragraph,
    render,
    section,
    table,
)
from papo.storage.pictures import open_picture

MAX_CHARACTERS = 3_000
"""Of a response; the rest is counted."""

_THUMBNAIL_SIDE = 220
_SHOWN_MISTAKES = 6
_STYLE = """
.case { display: grid; grid-template-columns: minmax(8rem, 14rem) 1fr; gap: 1rem; }
.case img { max-width: 100%; min-width: 7rem; height: auto; }
.case pre { align-self: start; white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; max-height: 22rem; overflow: auto; }
.mistakes { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 1rem; }
.mistakes figure { margin: 0; }
.mistakes img { width: 7rem; image-rendering: pixelated; }
.mistakes pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0.3rem 0; font-size: 0.8rem; }
@media (max-width: 40rem) { .case { grid-template-columns: 1fr; } }
"""


def error_page(
    summary: ErrorSummary,
    labelled: LabelledSample,
    readings: Sequence[RunReadings],
    *,
    num_cases: int,
) -> str:
    """Returns the page; text of responses is text on it, whatever it says.

    Args:
        summary: see papo.analysis.errors.analysis.summarize.
        labelled: the cases with their labels.
        readings: of drawn scenes; the commonest mistakes are shown.
        num_cases: cases shown, spread over labels and runs.
    """
    headline = summary.headline.labeller
    leading = [share_chart(summary, headline)] if headline else []
    leading += [transition_chart(one) for one in summary.transitions if one.labeller == headline]
    sections = {
        "found": section(
            "found",
            "What was found",
            *map(paragraph, _plain(summary)),
            grid(filter(None, leading), kind="few"),
        )
    }
    if summary.readings or summary.misread_facts:
        sections["misread"] = section("misread", "What is misread", *_misread(summary, readings))
    for number, (name, labeller) in enumerate(summary.labellers.items()):
        chart = None if name == headline else share_chart(summary, name)
        sections[f"labeller{number}"] = section(
            f"labeller{number}",
            f"Labelled by {name}",
            *(
                paragraph(note.replace("**", ""), kind="notice")
                for note in labeller_notes(labeller)
            ),
            grid([chart], kind="few") if chart else Markup(),
            _table(
                "Shares of the wrong answers in per cent, with 95 % intervals",
                share_table(summary, name),
            ),
            *(paragraph(sentence, kind="soft") for sentence in asked_sentences(summary, name)),
        )
    if summary.transitions:
        sections["changes"] = section(
            "changes",
            "What changed",
            paragraph(REGRESSION),
            *(_transitions(one, drawn=one.labeller == headline) for one in summary.transitions),
        )
    if summary.agreement:
        sections["agreement"] = section(
            "agreement",
            "Agreement between labellers",
            _table("Cases that both labelled", agreement_table(summary)),
        )
    sections["paper"] = section(
        "paper",
        "Beside the paper",
        paragraph(
            "Another model, other data, other labellers: the rows stand side by side, they are not a test."
        ),
        _table("Perception errors with 95 % intervals", paper_table(summary)),
    )
    sections["categories"] = section("categories", "Categories", _definitions())
    sections["cases"] = section("cases", "Cases", *_cases(labelled, num_cases))
    headings = {
        "found": "What was found",
        "misread": "What is misread",
        **{f"labeller{n}": f"Labelled by {name}" for n, name in enumerate(summary.labellers)},
        "changes": "What changed",
        "agreement": "Agreement",
        "paper": "Beside the paper",
        "categories": "Categories",
        "cases": "Cases",
    }
    return page(
        "What the wrong answers got wrong",
        join(sections.values(), "\n"),
        lead=f"Analysis {summary.analysis} of {', '.join(summary.runs)}.",
        contents={anchor: headings[anchor] for anchor in sections},
        style=_STYLE,
    )


def _plain(summary: ErrorSummary) -> list[str]:
    return [sentence.replace("**", "") for sentence in headline_sentences(summary)]


def _table(caption: str, content: tuple[Sequence[str], Sequence[Sequence[Any]]]) -> Markup:
    headings, rows = content
    return table(caption, headings, rows)


def _shaded(content: Table, *, ends: int) -> tuple[Sequence[str], list[list[Any]]]:
    """The same with the counts on a ground as strong as they are large; `ends` columns at the right are not counts."""
    headings, rows = content
    counts = [[int(cell) for cell in row[1 : len(row) - ends]] for row in rows]
    most = max(1, *(max(row) for row in counts))
    cells = [
        [row[0], *(Cell(str(n), n / most) for n in found), *row[len(row) - ends :]]
        for row, found in zip(rows, counts, strict=True)
    ]
    return headings, cells


def _misread(summary: ErrorSummary, readings: Sequence[RunReadings]) -> Iterator[Markup]:
    for one, found in zip(summary.readings, readings, strict=True):
        yield from map(paragraph, misreading_sentences(one))
        if not one.readings:
            continue
        yield _table(
            f"{one.run}: numbers that responses say (columns) where the picture shows (rows)",
            _shaded(confusion_table(one), ends=1),
        )
        yield details(f"{one.run}: by question and side", _table(GUESSED, side_table(one)))
        yield render(
            "mistakes.html",
            mistakes=[
                (
                    reading,
                    "once" if count == 1 else f"{count:,} times",
                    _thumbnails(reading.problem.images),
                )
                for reading, count in example_misreadings(found, _SHOWN_MISTAKES)
            ],
        )
    if summary.misread_facts:
        yield _table("Facts of annotated diagrams that wrong answers misread", fact_table(summary))


def _transitions(one: Transitions, *, drawn: bool) -> Markup:
    caption = (
        f"Response slots by category in {one.before} (rows) and {one.after} (columns), "
        f"labelled by {one.labeller}"
    )
    headings, rows = transition_table(one)
    _, cells = _shaded((headings, rows[:-1]), ends=1)
    chart = [] if drawn else [grid([transition_chart(one)], kind="few")]
    return join(
        [
            *chart,
            _table(caption, (headings, [*cells, rows[-1]])),
            *map(paragraph, transition_sentences(one)),
        ],
        "\n",
    )


def _definitions() -> Markup:
    rows = [
        (category_name(name), DEFINITIONS[name].meaning, DEFINITIONS[name].example)
        for name in ERROR_CATEGORIES
    ]
    return table("What each category means", ["category", "meaning", "example"], rows)


def _cases(labelled: LabelledSample, num_cases: int) -> Sequence[Markup]:
    shown = _spread(labelled, num_cases)
    total = len(labelled.sample.cases)
    note = f"{len(shown)} of {total} cases" + (
        "."
        if len(shown) == total
        else ", spread over labels and runs; labels.jsonl has all labels."
    )
    return [paragraph(note), *(_case(case, _labels_of(labelled, case)) for case in shown)]


def _labels_of(labelled: LabelledSample, case: Case) -> list[ErrorLabel]:
    return [labels[case.item] for labels in labelled.labels.values() if case.item in labels]


def _spread(labelled: LabelledSample, num_cases: int) -> list[Case]:
    """Cases of every run and first label in turn, so that a rare error is seen too."""
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in labelled.sample.blind_order():
        labels = _labels_of(labelled, case)
        groups.setdefault((case.run, labels[0].category if labels else "none"), []).append(case)
    shown: list[Case] = []
    queues = [groups[key] for key in sorted(groups)]
    for turn in range(max(map(len, queues))):
        shown.extend(queue[turn] for queue in queues if turn < len(queue))
    return shown[:num_cases]


def _case(case: Case, labels: Sequence[ErrorLabel]) -> Markup:
    names = ", ".join(dict.fromkeys(category_name(label.category) for label in labels))
    rows = [
        (
            label.labeller,
            category_name(label.category),
            "" if label.confidence is None else f"{label.confidence:.2f}",
            label.quote[:300],
            label.evidence[:600],
        )
        for label in labels
    ]
    body = render(
        "error_case.html",
        pictures=_thumbnails(case.images),
        question=case.question.replace("<image>", "").strip()[:MAX_CHARACTERS],
        case=case,
        parts=_marked(case.response[:MAX_CHARACTERS], labels[0].quote if labels else ""),
        left_out=max(0, len(case.response) - MAX_CHARACTERS),
    )
    verdicts = (
        table("Labels", ["labeller", "category", "confidence", "quote", "evidence"], rows)
        if rows
        else paragraph("No labeller labelled this case.")
    )
    title = f"{names or 'no label'}: {case.benchmark} {case.problem_id} in {case.run}"
    return details(title, body, verdicts)


def _marked(shown: str, quote: str) -> tuple[str, str, str]:
    """What stands before the quoted words, they, and what follows."""
    start = shown.find(quote) if quote else -1
    if start < 0:
        return shown, "", ""
    return shown[:start], quote, shown[start + len(quote) :]


def _thumbnails(paths: Sequence[Path]) -> list[str | None]:
    """Addresses that hold the pictures, None for one that cannot be read."""
    addresses: list[str | None] = []
    for path in paths:
        picture = open_picture(path, max_side=_THUMBNAIL_SIDE)
        if picture is None:
            addresses.append(None)
            continue
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=80)
        addresses.append(data_uri(buffer.getvalue()))
    return addresses
