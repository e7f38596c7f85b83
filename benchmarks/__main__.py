"""Runs every benchmark, each in a process of its own, and prints one table.

    python -m benchmarks [--repetitions N] [--only NAME ...]

Writes outputs/benchmarks/results.json. A benchmark that fails gives a row that says why.
"""

import argparse
import json
import subprocess
import sys
import time
from typing import Any

from benchmarks.measure import OUTPUT, REPOSITORY
from benchmarks.report import not_measured, repetition_count, results, table, write

BENCHMARKS = (
    "papo_step",
    "grpo_step",
    "papo_over_grpo",
    "scoring",
    "scoring_memory",
    "rollout",
    "head",
)


def run(name: str, repetitions: int | None) -> dict[str, Any]:
    """The results of one benchmark."""
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    if repetitions is not None:
        command += ["--repetitions", str(repetitions)]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if finished.returncode != 0:
        lines = finished.stderr.strip().splitlines() or ["no message"]
        return results([not_measured(name, "all", lines[-1])], repetitions=repetitions or 0)
    content: dict[str, Any] = json.loads((OUTPUT / f"{name}.json").read_text())
    return content


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--repetitions", type=repetition_count, default=None)
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=BENCHMARKS)
    arguments = parser.parse_args()
    parts = {}
    for name in arguments.only:
        started = time.monotonic()
        parts[name] = run(name, arguments.repetitions)
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    rows = [row for part in parts.values() for row in part["rows"]]
    content = {
        **results([], repetitions=max(part["repetitions"] for part in parts.values())),
        "repetitions_of": {name: part["repetitions"] for name, part in parts.items()},
        "rows": rows,
    }
    write(OUTPUT / "results.json", content)
    print(table(rows))


if __name__ == "__main__":
    main()
