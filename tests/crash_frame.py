"""Runs a front door in children that are killed at a chosen moment.

The driver imports once and forks, so that every case costs a second or two. A child is killed by
SIGKILL from inside, at a moment that a timer could not hit reliably; nothing can be cleaned up after it.
"""

import json
import math
import os
import runpy
import signal
import sys
import time
import traceback
from pathlib import Path

import composing_once

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))
composing_once.install()


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner, name, condition):
    """Dies when `owner.name` is called and `condition` holds of its arguments."""
    original = getattr(owner, name)

    def patched(*arguments, **keywords):
        if condition(*arguments):
            die()
        return original(*arguments, **keywords)

    setattr(owner, name, patched)


def on_call(number):
    """A condition that holds of the so-manieth call."""
    calls = []

    def is_reached(*_):
        calls.append(None)
        return len(calls) == number

    return is_reached


WRITES = ("fsync", "replace", "rename", "truncate", "unlink")


def die_at_write(number, *, afterwards):
    """Dies right before or after the so-manieth call by which files become what they are."""
    left = [number]

    def watched(original):
        def patched(*arguments, **keywords):
            left[0] -= 1
            if left[0] == 0 and not afterwards:
                die()
            result = original(*arguments, **keywords)
            if left[0] == 0:
                die()
            return result

        return patched

    for name in WRITES:
        setattr(os, name, watched(getattr(os, name)))


def run(script, run_dir, *overrides, sabotage=None, seconds=None):
    """Runs a script in a child; returns the signal that killed it, or its exit code negated.

    Args:
        script: a front door.
        run_dir: of the run; its output goes to RUN_DIR.log.
        overrides: of the command.
        sabotage: called in the child first.
        seconds: after so many the child is killed from here.
    """
    child = os.fork()
    if child == 0:
        code = 9
        try:
            if sabotage:
                sabotage()
            log = os.open(f"{run_dir}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.argv = [script, f"run_dir={run_dir}", *overrides]
            # The script calls `main` of the module of its name, which the driver imported.
            runpy.run_path(str(REPOSITORY / script), run_name="__main__")
        except SystemExit as exit:
            code = int(exit.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if seconds is None:
        _, status = os.waitpid(child, 0)
    else:
        ended, status = 0, 0
        deadline = time.monotonic() + seconds
        while not ended:
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                deadline = math.inf
            time.sleep(0.002)
            ended, status = os.waitpid(child, os.WNOHANG)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)


def run_cases(folder, script, command, cases):
    """Writes outcomes.json: per case how each of its starts ended; all but the first continue it.

    Args:
        folder: of the runs, NAME and NAME.log each.
        script: a front door, e.g. train.py.
        command: overrides of every start.
        cases: by name, the sabotage of each start but the last, which is left in peace.
    """
    composing_once.beforehand(REPOSITORY / "conf", script.removesuffix(".py"), overrides=command)
    outcomes = {}
    for name, sabotages in {"uninterrupted": [], **cases}.items():
        outcomes[name] = []
        for sabotage in [*sabotages, None]:
            resume = ["resume=true"] if outcomes[name] else []
            end = run(script, folder / name, *command, *resume, sabotage=sabotage)
            outcomes[name].append(end)
    (folder / "outcomes.json").write_text(json.dumps(outcomes))
