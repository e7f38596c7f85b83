"""Runs every benchmark, each in a process of its own, and prints one table.

    python -m benchmarks [--repetitions N] [--only NAME ...]

Writes outputs/benchmarks/results.json. A benchmark that fails gives a row that says why. With --only,
the other rows are those of earlier runs; the file says when and at which commit each was measured.
"""

import argparse
import json
import subprocess
import sys
import time
from typing import Any

from benchmarks.measure import OUTPUT, REPOSITORY
from benchmarks.report import (
    markdown,
    not_measured,
    repetition_count,
    results,
    table,
    versions_said,
    write,
)

BENCHMARKS = (
    "papo_step",
    "grpo_step",
    "papo_over_grpo",
    "scoring",
    "scoring_memory",
    "rollout",
    "head",
    "grading",
    "scaling",
    "prefix_grouper",
    "families",
    "methods",
)


def run(name: str, repetitions: int | None) -> None:
    """Runs one benchmark; its results are in outputs/benchmarks/NAME.json afterwards."""
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    if repetitions is not None:
        command += ["--repetitions", str(repetitions)]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if finished.returncode != 0:
        lines = finished.stderr.strip().splitlines() or ["no message"]
        failed = results([not_measured(name, "all", lines[-1])], repetitions=repetitions or 0)
        write(OUTPUT / f"{name}.json", failed)


def assemble() -> dict[str, Any]:
    """One table of everything measured so far."""
    parts = {}
    for name in BENCHMARKS:
        path = OUTPUT / f"{name}.json"
        if path.exists():
            parts[name] = json.loads(path.read_text("utf-8"))
        else:
            parts[name] = results([not_measured(name, "all", "never run here")], repetitions=0)
    about = ("commit", "uncommitted_changes", "measured_at", "repetitions", "matmul_gflops")
    return {
        **results([], repetitions=max(part["repetitions"] for part in parts.values())),
        "parts": {name: {key: part[key] for key in about} for name, part in parts.items()},
        "rows": [row for part in parts.values() for row in part["rows"]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--repetitions", type=repetition_count, default=None)
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=BENCHMARKS)
    parser.add_argument(
        "--markdown", action="store_true", help="print what was measured; run nothing"
    )
    arguments = parser.parse_args()
    if arguments.markdown:
        rows = assemble()["rows"]
        print("\n".join([markdown(rows), "", *versions_said(rows)]))
        return
    for name in arguments.only:
        started = time.monotonic()
        run(name, arguments.repetitions)
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    content = assemble()
    write(OUTPUT / "results.json", content)
    print("\n".join([table(content["rows"]), *versions_said(content["rows"])]))


if __name__ == "__main__":
    main()
