"""report.html of an error analysis: one file with tables, plots and the cases themselves."""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from papo.analysis.errors.analysis import LabelledSample
from papo.analysis.errors.misreading_report import (
    GUESSED,
    confusion_table,
    fact_table,
    misreading_sentences,
    side_table,
)
from papo.analysis.errors.misreadings import Reading, RunReadings, example_misreadings
from papo.analysis.errors.summary import ErrorSummary
from papo.analysis.errors.tables import (
    REGRESSION,
    Table,
    agreement_table,
    asked_sentences,
    headline_sentences,
    labeller_notes,
    paper_table,
    share_table,
    transition_sentences,
    transition_table,
)
from papo.analysis.errors.taxonomy import DEFINITIONS, ERROR_CATEGORIES, Case, ErrorLabel
from papo.analysis.errors.transitions import Transitions
from papo.reporting.html import Markup, data_uri, details, join, page, paragraph, section, table
from papo.storage.pictures import open_picture

MAX_CHARACTERS = 3_000
"""Of a response; the rest is counted."""

_THUMBNAIL_SIDE = 220
_SHOWN_MISTAKES = 6
_STYLE = """
.plot { max-width: 100%; max-height: 26rem; background: #fff; }
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
    plots: Mapping[str, bytes],
    num_cases: int,
) -> str:
    """Returns the page; text of responses is text on it, whatever it says.

    Args:
        summary: see papo.analysis.errors.analysis.summarize.
        labelled: the cases with their labels.
        readings: of drawn scenes; the commonest mistakes are shown.
        plots: what a picture shows -> PNG.
        num_cases: cases shown, spread over labels and runs.
    """
    sections = {"found": section("found", "What was found", *map(paragraph, _plain(summary)))}
    sections["found"] += join(_plot(text, picture) for text, picture in plots.items())
    if summary.readings or summary.misread_facts:
        sections["misread"] = section("misread", "What is misread", *_misread(summary, readings))
    for number, (name, labeller) in enumerate(summary.labellers.items()):
        sections[f"labeller{number}"] = section(
            f"labeller{number}",
            f"Labelled by {name}",
            *(
                paragraph(note.replace("**", ""), kind="notice")
                for note in labeller_notes(labeller)
            ),
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
            *map(_transitions, summary.transitions),
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


def _table(caption: str, content: Table) -> Markup:
    headings, rows = content
    return table(caption, headings, rows)


def _plot(text: str, picture: bytes) -> Markup:
    return Markup('<p><img class="plot" alt="{}" src="{}"></p>\n').format(text, data_uri(picture))


def _misread(summary: ErrorSummary, readings: Sequence[RunReadings]) -> Iterator[Markup]:
    for one, found in zip(summary.readings, readings, strict=True):
        yield from map(paragraph, misreading_sentences(one))
        if not one.readings:
            continue
        yield _table(
            f"{one.run}: numbers that responses say (columns) where the picture shows (rows)",
            confusion_table(one),
        )
        yield details(f"{one.run}: by question and side", _table(GUESSED, side_table(one)))
        yield Markup('<div class="mistakes">{}</div>').format(
            join(
                _mistake(reading, count)
                for reading, count in example_misreadings(found, _SHOWN_MISTAKES)
            )
        )
    if summary.misread_facts:
        yield _table("Facts of annotated diagrams that wrong answers misread", fact_table(summary))


def _mistake(reading: Reading, count: int) -> Markup:
    words = Markup("<b>{} read as {}</b>, {} times, e.g. {} = {} here").format(
        reading.shown, reading.said, count, reading.side, reading.shown
    )
    return Markup("<figure>{}<figcaption>{}<pre>{}</pre></figcaption></figure>").format(
        join(map(_thumbnail, reading.problem.images)), words, reading.record.response[:300]
    )


def _transitions(one: Transitions) -> Markup:
    caption = (
        f"Response slots by category in {one.before} (rows) and {one.after} (columns), "
        f"labelled by {one.labeller}"
    )
    return join(
        [_table(caption, transition_table(one)), *map(paragraph, transition_sentences(one))], "\n"
    )


def _definitions() -> Markup:
    rows = [
        (name.replace("_", " "), DEFINITIONS[name].meaning, DEFINITIONS[name].example)
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
    names = ", ".join(dict.fromkeys(label.category.replace("_", " ") for label in labels))
    rows = [
        (
            label.labeller,
            label.category.replace("_", " "),
            "" if label.confidence is None else f"{label.confidence:.2f}",
            label.quote[:300],
            label.evidence[:600],
        )
        for label in labels
    ]
    pictures = join(map(_thumbnail, case.images))
    body = Markup(
        '<div class="case"><div>{}<p>{}</p><p>Right answer: {}<br>Given: {}</p></div><pre>{}</pre></div>'
    ).format(
        pictures,
        case.question.replace("<image>", "").strip()[:MAX_CHARACTERS],
        case.reference[:300],
        "none" if case.answer is None else case.answer[:300],
        _marked(case.response, labels[0].quote if labels else ""),
    )
    verdicts = (
        table("Labels", ["labeller", "category", "confidence", "quote", "evidence"], rows)
        if rows
        else paragraph("No labeller labelled this case.")
    )
    title = f"{names or 'no label'}: {case.benchmark} {case.problem_id} in {case.run}"
    return details(title, body, verdicts)


def _marked(response: str, quote: str) -> Markup:
    """The response, cut to a bearable length, with the quoted words marked."""
    shown = response[:MAX_CHARACTERS]
    left_out = len(response) - len(shown)
    end = Markup("\n<em>({:,} more characters)</em>").format(left_out) if left_out else Markup()
    start = shown.find(quote) if quote else -1
    if start < 0:
        return Markup("{}{}").format(shown, end)
    stop = start + len(quote)
    return Markup("{}<mark>{}</mark>{}{}").format(shown[:start], quote, shown[stop:], end)


def _thumbnail(path: Path) -> Markup:
    picture = open_picture(path, max_side=_THUMBNAIL_SIDE)
    if picture is None:
        return paragraph("(a picture that cannot be read)", kind="soft")
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return Markup('<img alt="picture of the problem" src="{}">').format(data_uri(buffer.getvalue()))
