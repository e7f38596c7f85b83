"""Runs evaluate.py in children that are killed at a chosen moment. Usage: FOLDER.

Imports once and forks, so that every case costs a second or two. A child is killed by SIGKILL from
inside, at a moment that a timer could not hit reliably; nothing can be cleaned up after it.
"""

import json
import os
import runpy
import signal
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

import evaluate  # noqa: E402
from papo import files  # noqa: E402
from papo.evaluation import runner, store  # noqa: E402

COMMAND = [
    "benchmark.limit=4",
    "rollout.num_responses=2",
    "rollout.max_response_tokens=24",
    "evaluation.tokens_per_batch=180",
]


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner, name, number):
    """Dies when `owner.name` is called for the so-manieth time."""
    original = getattr(owner, name)
    calls = []

    def patched(*arguments, **keywords):
        calls.append(None)
        if len(calls) == number:
            die()
        return original(*arguments, **keywords)

    setattr(owner, name, patched)


def die_in_the_middle_of_a_write(file, number):
    original = files.AppendOnlyFile.append
    calls = []

    def patched(self, lines):
        original(self, lines)
        if self.path.name == file:
            calls.append(None)
            if len(calls) == number:
                os.truncate(self.path, self.path.stat().st_size - 30)
                die()

    files.AppendOnlyFile.append = patched


MOMENTS = {
    "while_sampling": lambda: before(runner, "sample_prompts", 2),
    "in_the_second_set": lambda: before(runner, "sample_prompts", 4),
    "between_responses_and_their_batch": lambda: before(store, "_csv_line", 2),
    "in_the_middle_of_a_response": lambda: die_in_the_middle_of_a_write("responses.jsonl", 2),
    "in_the_middle_of_a_problem": lambda: die_in_the_middle_of_a_write("problems.jsonl", 5),
    "in_the_middle_of_a_batch_row": lambda: die_in_the_middle_of_a_write("batches.csv", 3),
    "before_the_tables": lambda: before(evaluate, "summarize", 1),
}


def run(run_dir, *overrides, sabotage=None):
    """Runs evaluate.py in a child; returns the signal that killed it, or its exit code negated."""
    child = os.fork()
    if child == 0:
        code = 9
        try:
            if sabotage:
                sabotage()
            log = os.open(f"{run_dir}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.argv = ["evaluate.py", *COMMAND, f"run_dir={run_dir}", *overrides]
            if sabotage:
                # The module that was imported is the one that was tampered with.
                evaluate.main()
                code = evaluate.front_door.exit_code()
            else:
                runpy.run_path(str(REPOSITORY / "evaluate.py"), run_name="__main__")
        except SystemExit as exit:
            code = int(exit.code or 0)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)


def main(folder):
    outcomes = {"uninterrupted": [run(folder / "uninterrupted")]}
    for name, sabotage in MOMENTS.items():
        killed = run(folder / name, sabotage=sabotage)
        outcomes[name] = [killed, run(folder / name, "resume=true")]
    (folder / "outcomes.json").write_text(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
