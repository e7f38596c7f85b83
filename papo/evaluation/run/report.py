"""Shows a summary: as a table on the terminal, as table.csv, as report.md."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from papo.reporting.csv_text import csv_records
from papo.reporting.markdown_text import markdown_table
from papo.reporting.numbers import percent

_PLAIN = ("num_problems", "num_left_out", "num_responses", "cut", "answered", "formatted")


def accuracy_name(summary: Mapping[str, Any]) -> str:
    """Returns avg@k, or greedy where the most likely token was always taken."""
    protocol = summary["protocol"]
    if protocol.get("top_k") == 1:
        return "greedy"
    return f"avg@{protocol['num_responses']}"


def table_csv(summary: Mapping[str, Any]) -> str:
    """Returns one row per benchmark and view, then the averages; shares between 0 and 1."""
    rows = [*map(_set_row, summary["sets"]), *map(_average_row, summary["averages"])]
    for row in rows:
        for name, scores in summary["published"].items():
            column = row["published_column"] or row["benchmark"]
            row[f"published_{name}"] = scores.get(column) if row["view"] == "image" else None
    return csv_records(rows)


def _set_row(one: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{key: one[key] for key in ("benchmark", "label", "group", "published_column", "view")},
        **{key: one[key] for key in _PLAIN},
        "mean_tokens": one["mean_tokens"],
        **_interval_cells("accuracy", one["accuracy"]),
        **{
            key: value
            for k, interval in one["pass_at"].items()
            for key, value in _interval_cells(f"pass_at_{k}", interval).items()
        },
        **{f"accuracy_{name}": share for name, share in one["accuracy_by_grader"].items()},
        "disagreement": one["disagreement"],
    }


def _average_row(average: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "benchmark": average["name"],
        "label": average["name"],
        "group": "average",
        "published_column": None,
        "view": average["view"],
        **_interval_cells("accuracy", average["interval"]),
    }


def _interval_cells(name: str, interval: Mapping[str, float] | None) -> dict[str, float | None]:
    interval = interval or {}
    return {
        name: interval.get("value"),
        f"{name}_low": interval.get("low"),
        f"{name}_high": interval.get("high"),
    }


def _columns(summary: Mapping[str, Any]) -> list[str]:
    passes = list(dict.fromkeys(k for one in summary["sets"] for k in one["pass_at"] if k != "1"))
    return [
        "benchmark",
        "view",
        "problems",
        accuracy_name(summary),
        *(f"pass@{k}" for k in passes),
        "cut",
        "boxed",
        "format",
        *summary["published"],
    ]


def _lines(summary: Mapping[str, Any]) -> tuple[list[list[str]], list[list[str]]]:
    """Cells of the benchmarks, and of the averages that there are; per cent."""
    published = summary["published"]
    passes = [name for name in _columns(summary) if name.startswith("pass@")]
    sets = [
        [
            one["label"],
            one["view"],
            str(one["num_problems"]),
            percent(one["accuracy"]),
            *(percent(one["pass_at"][name.removeprefix("pass@")]["value"]) for name in passes),
            percent(one["cut"]),
            percent(one["answered"]),
            percent(one["formatted"]),
            *_published(published, one["view"], one["published_column"]),
        ]
        for one in summary["sets"]
    ]
    means = [
        [
            f"mean, {average['name']}",
            average["view"],
            "",
            percent(average["interval"]),
            *("" for _ in passes),
            *("", "", ""),
            *_published(published, average["view"], average["name"]),
        ]
        for average in summary["averages"]
        if average["interval"] is not None
    ]
    return sets, means


def _published(
    published: Mapping[str, Mapping[str, float]], view: str, column: str | None
) -> list[str]:
    """Cells of the published rows, which were measured with the image alone."""
    return [
        percent(scores.get(column or "")) if view == "image" else ""
        for scores in published.values()
    ]


def terminal_table(summary: Mapping[str, Any]) -> Table:
    """Returns the table of `python evaluate.py`: per cent, with 95 % intervals over problems."""
    table = Table(title="share of responses in %, with 95 % intervals over problems")
    for number, name in enumerate(_columns(summary)):
        table.add_column(name, justify="left" if number < 2 else "right")
    sets, means = _lines(summary)
    for line in sets:
        table.add_row(*line)
    if means:
        table.add_section()
    for line in means:
        table.add_row(*line)
    return table


def notes(summary: Mapping[str, Any]) -> list[str]:
    """Returns what a reader of the table must know beside it."""
    found = []
    for one in (*summary["sets"], *summary["empty"]):
        if one["num_left_out"]:
            found.append(
                f"{one['label']}, {one['view']}: {one['num_left_out']} problems left out (not readable or not to be shown, "
                "or without a picture to change)"
            )
    missing = {
        average["name"]: average["missing"]
        for average in summary["averages"]
        if average["interval"] is None
    }
    for name, columns in missing.items():
        found.append(f"no {name} average: {', '.join(columns)} not evaluated")
    for average in summary["averages"]:
        if average.get("num_shared") and average["view"] == summary["sets"][0]["view"]:
            found.append(
                f"the interval of the {average['name']} average resamples the {average['num_shared']} "
                "problems that several of its benchmarks ask in all of them together"
            )
    if summary["published"]:
        found.append(
            "published columns are avg@8 of arXiv:2507.06448v5, Table 1, which prints no intervals"
        )
        if summary["deviations"]:
            found.append(f"differs from their protocol: {'; '.join(summary['deviations'])}")
    for one in summary["sets"]:
        for grader, verdicts in one["verdicts"].items():
            if set(verdicts) - {"correct", "wrong"}:
                shares = ", ".join(f"{name} {percent(share)}" for name, share in verdicts.items())
                found.append(f"{one['label']}, {one['view']}: {grader} says {shares}")
        if one["disagreement"] is not None:
            by_grader = ", ".join(
                f"{name} {percent(share)}" for name, share in one["accuracy_by_grader"].items()
            )
            found.append(
                f"{one['label']}, {one['view']}: accuracy by grader {by_grader}; they disagree on "
                f"{percent(one['disagreement'])} % of responses"
            )
    return found


def markdown(summary: Mapping[str, Any]) -> str:
    """Returns report.md."""
    sets, means = _lines(summary)
    protocol = ", ".join(f"{name} {value}" for name, value in summary["protocol"].items())
    checkpoint = summary["checkpoint"]
    return "\n".join(
        [
            "# Evaluation",
            "",
            f"* policy: `{checkpoint['location']}`, weights `{checkpoint.get('weights')}`",
            f"* protocol: {protocol}",
            "",
            "Shares of responses in %, with 95 % intervals over problems (docs/evaluation.md).",
            "",
            markdown_table(_columns(summary), [*sets, *means], texts=2),
            "",
            *(f"* {note}" for note in notes(summary)),
            "",
        ]
    )
