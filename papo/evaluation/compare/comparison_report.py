"""Shows a comparison: as a table on the terminal, and as comparison.json and comparison.md."""

from collections.abc import Iterator
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from papo.evaluation.compare.comparison import Comparison, SetComparison
from papo.reporting.markdown_text import markdown_table, markdown_text
from papo.reporting.numbers import percent
from papo.storage.files import write_atomically, write_json

COLUMNS = (
    "benchmark",
    "problems",
    "first",
    "second",
    "difference",
    "p",
    "q",
    "fixed",
    "broken",
    "McNemar p",
    "q",
)

RULE = (
    "Accuracies are avg@k in per cent. The difference is second minus first with its 95 % interval and "
    "p-value by a bootstrap over problems, paired. Fixed and broken count problems solved by the second "
    "run alone and by the first alone; solved are those of which more than half of the k responses are "
    "right (a tie is not), tested by McNemar's exact test. q is Benjamini-Hochberg over benchmarks."
)


def comparison_table(comparison: Comparison) -> Table:
    """Returns the table for a terminal."""
    table = Table(
        title=f"second minus first, view {comparison.view}, k = {comparison.num_responses}"
    )
    for index, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if index == 0 else "right")
    for one in comparison.benchmarks:
        table.add_row(*map(escape, _cells(one)))
    if len(comparison.benchmarks) > 1:
        table.add_section()
        table.add_row(*map(escape, _cells(comparison.pooled)))
    return table


def comparison_notes(comparison: Comparison) -> list[str]:
    """Returns what a reader must know beside the table, a sentence per line."""
    notes = [f"first: {comparison.first}", f"second: {comparison.second}"]
    if comparison.mean_difference is not None:
        notes.append(
            f"mean of the benchmarks' differences: {percent(comparison.mean_difference, signed=True)}"
        )
    if any(comparison.left_out):
        notes.append(
            f"compared on {comparison.pooled.num_problems} common problems; left out: "
            f"{comparison.left_out[0]} of the first run, {comparison.left_out[1]} of the second"
        )
    notes += [f"not measured alike: {setting}" for setting in comparison.other_settings]
    return notes


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Writes comparison.json and comparison.md, the lists of problems among them."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "comparison.json", comparison.to_dict())
    write_atomically(folder / "comparison.md", comparison_markdown(comparison))


def comparison_markdown(comparison: Comparison) -> str:
    """Returns the table, the notes, and the problems that changed."""
    lines = ["# Comparison", "", RULE, ""]
    lines += [f"- {markdown_text(note)}" for note in comparison_notes(comparison)]
    lines += ["", f"View {comparison.view}, k = {comparison.num_responses}.", ""]
    pooled = [comparison.pooled] if len(comparison.benchmarks) > 1 else []
    lines.append(
        markdown_table(COLUMNS, [*map(_cells, [*comparison.benchmarks, *pooled])], texts=1)
    )
    for one in comparison.benchmarks:
        lines += ["", f"## {markdown_text(one.benchmark)}", "", *_lists(one)]
    return "\n".join(lines) + "\n"


def _lists(one: SetComparison) -> Iterator[str]:
    yield from _list("Fixed", one.fixed)
    yield from _list("Broken", one.broken)
    yield from _list("Still solved", one.still_solved)
    yield from _list("Still unsolved", one.still_unsolved)


def _list(title: str, problem_ids: tuple[str, ...]) -> Iterator[str]:
    yield f"{title} ({len(problem_ids)}): " + (", ".join(map(markdown_text, problem_ids)) or "none")
    yield ""


def _cells(one: SetComparison) -> tuple[str, ...]:
    return (
        one.benchmark,
        str(one.num_problems),
        percent(one.first),
        percent(one.second),
        percent(one.difference.interval, signed=True),
        _probability(one.difference.p_value),
        _probability(one.difference_q),
        str(len(one.fixed)),
        str(len(one.broken)),
        _probability(one.mcnemar_p),
        _probability(one.mcnemar_q),
    )


def _probability(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"
