"""What is misread, in words and tables: numbers of drawn scenes, and facts of annotated diagrams."""

from collections import Counter

from papo.analysis.errors.misreadings import ReadingsSummary
from papo.analysis.errors.summary import ErrorSummary
from papo.analysis.errors.tables import Table, per_cent

GUESSED = (
    "A wrong reading that is guessed from the question tends to say the number that is commonest in "
    "training at that side under that question. Counted are wrong readings where that number is not the "
    "one shown; wrong numbers picked evenly would say it in one of seven."
)


def misreading_sentences(one: ReadingsSummary) -> list[str]:
    """Returns how much of the drawn scenes a run misreads, and how much of that is guessed."""
    if one.share is None:
        return [f"{one.run}: no response follows the lab's grammar, so nothing can be read off."]
    sentences = [
        f"{one.run} misreads {per_cent(one.share)} of {one.readings} numbers that it reads off."
    ]
    for benchmark, found in one.benchmarks.items():
        if found.share and found.guessed and found.evenly is not None:
            sentences.append(
                f"{one.run}, {benchmark}: {per_cent(found.share)} misread; "
                f"{per_cent(found.guessed)} of the wrong readings say the number that is commonest in "
                f"training under this question (picked evenly: {100 * found.evenly:.1f} %)."
            )
    if one.responses_left_out:
        sentences.append(
            f"{one.run}: {one.responses_left_out} responses are of no grammar and were left out."
        )
    return sentences


def mistake_table(one: ReadingsSummary, *, most: int) -> Table:
    """Returns the commonest mistakes: shown, said, how often, and of how many."""
    shown = Counter[int]()
    for entry in one.table:
        shown[entry.shown] += entry.readings
    wrong = [entry for entry in one.table if entry.shown != entry.said]
    rows = [
        [
            f"{entry.shown} read as {entry.said}",
            str(entry.readings),
            str(shown[entry.shown]),
            f"{100 * entry.readings / shown[entry.shown]:.1f}",
        ]
        for entry in sorted(wrong, key=lambda entry: -entry.readings)[:most]
    ]
    return ["mistake", "times", "of", "%"], rows


def confusion_table(one: ReadingsSummary) -> Table:
    """Returns a row per number shown and a column per number said."""
    counts = {(entry.shown, entry.said): entry.readings for entry in one.table}
    said = sorted({number for _, number in counts})
    rows = []
    for shown in sorted({number for number, _ in counts}):
        row = [counts.get((shown, number), 0) for number in said]
        wrong = sum(row) - counts.get((shown, shown), 0)
        rows.append([str(shown), *map(str, row), f"{100 * wrong / sum(row):.1f}"])
    return ["shown \\ said", *map(str, said), "misread, %"], rows


def side_table(one: ReadingsSummary) -> Table:
    """Returns a row per question and side: how much is misread, and how much of that is guessed."""
    rows = [
        [
            f"{found.operation}, {found.side}",
            str(found.readings),
            f"{100 * found.misread / found.readings:.1f}",
            str(found.likeliest),
            "-" if found.guessed is None else per_cent(found.guessed),
        ]
        for found in one.sides
    ]
    return [
        "question, side",
        "readings",
        "misread, %",
        "commonest in training",
        "of the wrong readings, say it",
    ], rows


def fact_table(summary: ErrorSummary) -> Table:
    """Returns a row per kind of fact that the rules found misread, and one example of each."""
    runs = summary.runs
    rows = [
        [
            one.kind,
            *(str(one.runs[run]) for run in runs),
            f"{one.quote}: {one.evidence}",
        ]
        for one in summary.misread_facts
    ]
    return ["misread", *runs, "for example"], rows
