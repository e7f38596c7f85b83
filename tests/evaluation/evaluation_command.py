"""Runs evaluate.py inside the test process, as the command line would."""

import contextlib
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# Three problems of each of the lab's sets, two responses, a batch per problem.
SHORT = (
    "benchmark.limit=3",
    "rollout.num_responses=2",
    "rollout.max_response_tokens=24",
    "evaluation.tokens_per_batch=100",
)
TABLES = ("responses.jsonl", "problems.jsonl", "summary.json", "table.csv", "report.md")


@dataclass
class Outcome:
    code: int
    stdout: str
    stderr: str


def run_evaluation(*overrides, short=True, multirun=False):
    """Returns exit code and output of `python evaluate.py OVERRIDES`."""
    from papo.commands import evaluate, front_door

    flags = ("-m",) if multirun else ()
    stdout, stderr = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        patch.setattr(front_door, "_failures", [])
        patch.setattr(sys, "argv", ["evaluate.py", *flags, *(SHORT if short else ()), *overrides])
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            try:
                evaluate.main()
                code = front_door.exit_code()
            except SystemExit as exit:
                code = int(exit.code or 0)
    return Outcome(code, stdout.getvalue(), stderr.getvalue())


def read_json(folder, name):
    return json.loads((Path(folder) / name).read_text())


def records(folder):
    from papo.storage.responses import read_responses

    return list(read_responses(Path(folder)))


def contents(folder):
    """Every file below a folder with its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }
