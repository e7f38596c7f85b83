"""What a benchmark says: rows with a goal, a measurement and a verdict; the table; the JSON file."""

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from benchmarks.measure import OUTPUT, Spread, environment, matmul_flops_per_second

Verdict = Literal["reached", "missed", "reported", "not measured"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        benchmark: what was compared with what.
        case: the shape and the setting.
        goal: a bound on `value`, e.g. (">=", 4.0); None where a number is only reported.
        value: the median over repetitions; None when it could not be measured.
        low: the smallest repetition.
        high: the largest repetition.
        unit: "x" for ratios, "%" for shares.
        note: why it was not measured, or what else one must know to read the number.
        details: the numbers behind it.
    """

    benchmark: str
    case: str
    goal: tuple[str, float] | None
    value: float | None
    unit: str = "x"
    low: float | None = None
    high: float | None = None
    note: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        if self.value is None:
            return "not measured"
        if self.goal is None:
            return "reported"
        comparison, bound = self.goal
        reached = self.value >= bound if comparison == ">=" else self.value <= bound
        return "reached" if reached else "missed"


def row_of(measured: Spread, **fields: Any) -> Row:
    """A row whose value is the median of some repetitions."""
    return Row(value=measured.median, low=measured.lowest, high=measured.highest, **fields)


def not_measured(benchmark: str, case: str, why: str) -> Row:
    return Row(benchmark=benchmark, case=case, goal=None, value=None, note=why)


def _lines(rows: Iterable[dict[str, Any]]) -> list[tuple[str, ...]]:
    lines = [("benchmark", "case", "must reach", "measured", "(lowest to highest)", "verdict")]
    return lines + [
        (
            row["benchmark"],
            row["case"],
            _goal(row),
            _number(row["value"], row["unit"]),
            _range(row),
            row["verdict"] + (f": {row['note']}" if row["value"] is None else ""),
        )
        for row in rows
    ]


def markdown(rows: Iterable[dict[str, Any]]) -> str:
    """The table as docs/benchmarks.md shows it."""
    head, *lines = _lines(rows)
    return "\n".join(
        "| " + " | ".join(cells) + " |" for cells in (head, ("---",) * len(head), *lines)
    )


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Aligned columns: benchmark, case, must reach, measured (lowest to highest), verdict."""
    lines = _lines(rows)
    widths = [max(len(line[i]) for line in lines) for i in range(5)]
    return "\n".join(
        "  ".join(
            [*(cell.ljust(width) for cell, width in zip(line[:5], widths, strict=True)), line[5]]
        )
        for line in lines
    )


def versions_said(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Which versions both sides of a comparison ran, a line for each pair, and where they differ.

    Args:
        rows: of a results file; whole steps carry what each process said of itself.
    """
    lines = []
    for row in rows:
        said = {name: one["versions"] for name, one in row["details"].get("said", {}).items()}
        own = next((versions for versions in said.values() if "papo" in versions), None)
        for peer, versions in said.items():
            if own is None or "papo" in versions:
                continue
            differ = [
                f"{name} {own[name]} here and {versions[name]} there"
                for name in sorted({*own} & {*versions})
                if own[name] != versions[name]
            ]
            lines.append(
                f"{row['benchmark']}: papo with {_named(own)}; {peer} with {_named(versions)}: "
                + (f"not the same: {', '.join(differ)}" if differ else "the same")
            )
    return list(dict.fromkeys(lines))


def _named(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in versions.items() if name != "papo")


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.0f} %" if unit == "%" else f"{value:.2f}{unit}"


def _goal(row: dict[str, Any]) -> str:
    if row["goal"] is None:
        return ""
    comparison, bound = row["goal"]
    return f"{comparison} {_number(bound, row['unit'])}"


def _range(row: dict[str, Any]) -> str:
    if row["low"] is None or row["low"] == row["high"]:
        return ""
    return f"({_number(row['low'], row['unit'])} to {_number(row['high'], row['unit'])})"


def results(rows: Sequence[Row], *, repetitions: int) -> dict[str, Any]:
    """What one benchmark file holds: where, when, with what, and the rows."""
    return {
        **environment(),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "matmul_gflops": matmul_flops_per_second() / 1e9,
        "repetitions": repetitions,
        "rows": [{**asdict(row), "verdict": row.verdict} for row in rows],
    }


def check_results(content: dict[str, Any]) -> None:
    """Says what is wrong with a results file.

    Raises:
        ValueError: a field is missing, or a verdict contradicts its own number.
    """
    wanted = {"commit", "versions", "device", "threads", "repetitions", "matmul_gflops", "rows"}
    if missing := sorted(wanted - set(content)):
        raise ValueError(f"results lack {', '.join(missing)}")
    for fields in content["rows"]:
        stored = dict(fields)
        verdict = stored.pop("verdict", None)
        if stored.get("goal") is not None:
            stored["goal"] = tuple(stored["goal"])
        row = Row(**stored)
        if row.verdict != verdict:
            raise ValueError(
                f"{row.benchmark}, {row.case}: the verdict is {row.verdict}, not {verdict}"
            )
        if row.value is None and not row.note:
            raise ValueError(f"{row.benchmark}, {row.case}: not measured, and no reason given")


def write(path: Path, content: dict[str, Any]) -> None:
    check_results(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def repetition_count(text: str) -> int:
    """A command-line number of repetitions, at least 1."""
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"a median needs at least 1 repetition; got {count}")
    return count


def run_alone(name: str, measure: Callable[[int], list[Row]], *, repetitions: int) -> None:
    """The command line of one benchmark: measures, prints its table, writes outputs/benchmarks/NAME.json."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    parser.add_argument("--repetitions", type=repetition_count, default=repetitions)
    arguments = parser.parse_args()
    # Asked before measuring: the code that runs is the code of this moment.
    started_as = environment()
    content = results(measure(arguments.repetitions), repetitions=arguments.repetitions)
    content.update(started_as)
    write(OUTPUT / f"{name}.json", content)
    print(table(content["rows"]))
