"""Runs train.py inside the test process, as the command line would."""

import contextlib
import io
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

SHORT = (
    "training.num_rollouts=2",
    "training.prompts_per_rollout=2",
    "training.prompts_per_minibatch=2",
    "training.prompts_per_microbatch=1",
    "rollout.num_responses=2",
    "evaluation.num_problems=2",
    "evaluation.num_responses=1",
    "callbacks.checkpoint.every_rollouts=1",
    "safeguard=off",  # it saves the start as well, and has columns of its own: test_safeguard.py
)


@dataclass
class Outcome:
    code: int
    stdout: str
    stderr: str


def run_command(*overrides, short=True, multirun=False, launched=False):
    """Returns exit code and output of `python train.py OVERRIDES`.

    `launched`: as in a process of a launcher (submitit), which calls the task, and has handlers of its own.
    """
    from papo.commands import front_door, train

    flags = ("-m",) if multirun else ()
    stdout, stderr = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        patch.setattr(front_door, "_failures", [])
        patch.setattr(sys, "argv", ["train.py", *flags, *(SHORT if short else ()), *overrides])
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            try:
                if launched:
                    train.main()
                    code = front_door.exit_code()
                else:
                    code = front_door.command(train.main, on_ranks=True)
            except SystemExit as exit:
                code = int(exit.code or 0)
    return Outcome(code, stdout.getvalue(), stderr.getvalue())


def sent_on_call(monkeypatch, owner, name, number, *, call=1):
    """Sends this process a signal before the so-manieth call of `owner.name`."""
    original, calls = getattr(owner, name), []

    def signalled(*arguments, **keywords):
        calls.append(None)
        if len(calls) == call:
            os.kill(os.getpid(), number)
        return original(*arguments, **keywords)

    monkeypatch.setattr(owner, name, signalled)


def result(run_dir):
    return json.loads((Path(run_dir) / "result.json").read_text())


def contents(folder):
    """Every file below a folder with its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }
