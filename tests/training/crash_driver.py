"""Runs train.py in children that are killed at a chosen moment. Usage: crash_driver.py FOLDER.

Imports once and forks, so that every case costs seconds. A child is killed by SIGKILL from inside,
at a moment that a timer could not hit reliably; nothing can be cleaned up after it.
"""

import itertools
import json
import os
import runpy
import signal
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

import torch  # noqa: E402

import train  # noqa: E402
from papo.training import callbacks, checkpoints, collect, papo  # noqa: E402

COMMAND = [
    "training.num_rollouts=5",
    "training.prompts_per_rollout=4",
    "training.prompts_per_minibatch=2",
    "training.prompts_per_microbatch=1",
    "training.max_resample=1",
    "rollout.num_responses=2",
    "rollout.max_response_tokens=20",
    "evaluation.num_problems=4",
    "evaluation.num_responses=1",
    "callbacks.checkpoint.every_rollouts=2",
    "callbacks.rollout_table.every_rollouts=2",
    "callbacks.rollout_table.num_prompts=1",
]


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner, name, condition):
    """Dies when `owner.name` is called and `condition` holds of its arguments."""
    original = getattr(owner, name)

    def patched(*arguments, **keywords):
        if condition(*arguments):
            die()
        return original(*arguments, **keywords)

    setattr(owner, name, patched)


def die_while_saving(rollout_step):
    original = torch.save

    def patched(checkpoint, file):
        original(checkpoint, file)
        if checkpoint["papo"]["rollout_step"] == rollout_step:
            file.flush()
            file.truncate(file.tell() // 2)
            die()

    torch.save = patched


def die_in_the_middle_of_a_row(rollout_step):
    original = callbacks.record.append_csv

    def patched(path, row):
        original(path, row)
        if row["rollout_step"] == rollout_step and path.name == "metrics.csv":
            content = path.read_bytes()
            path.write_bytes(content[:-20])
            die()

    callbacks.record.append_csv = patched


_rollouts = itertools.count()

MOMENTS = {
    "before_the_first_checkpoint": lambda: before(
        collect.Collector, "_act_and_judge", lambda self, step, *_: step == 1
    ),
    "during_a_rollout": lambda: before(
        collect, "group_advantages", lambda *_: next(_rollouts) == 3
    ),
    "between_two_updates": lambda: before(
        papo.PAPOModule, "_terms", lambda self, *_: self.update_step == 5
    ),
    "in_the_middle_of_a_row": lambda: die_in_the_middle_of_a_row(4),
    "between_row_and_checkpoint": lambda: before(
        checkpoints.AtomicCheckpointIO,
        "save_checkpoint",
        lambda self, checkpoint, *_: checkpoint["papo"]["rollout_step"] == 4,
    ),
    "while_writing_a_checkpoint": lambda: die_while_saving(4),
    "after_the_last_checkpoint": lambda: before(
        checkpoints, "_sync_folder", lambda folder: (folder / "rollout_000005.ckpt").exists()
    ),
}


def run(run_dir, *overrides, sabotage=None):
    """Runs train.py in a child; returns the signal that killed it, or its exit code negated."""
    child = os.fork()
    if child == 0:
        code = 9
        try:
            if sabotage:
                sabotage()
            log = os.open(f"{run_dir}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.argv = ["train.py", *COMMAND, f"run_dir={run_dir}", *overrides]
            runpy.run_path(str(REPOSITORY / "train.py"), run_name="__main__")
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
    twice = folder / "killed_twice"
    outcomes["killed_twice"] = [
        run(twice, sabotage=MOMENTS["between_two_updates"]),
        run(twice, "resume=true", sabotage=MOMENTS["while_writing_a_checkpoint"]),
        run(twice, "resume=true"),
    ]
    (folder / "outcomes.json").write_text(json.dumps(outcomes))


if __name__ == "__main__":
    assert train, "imported here so that no child has to"
    main(Path(sys.argv[1]))
