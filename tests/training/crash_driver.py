"""Kills train.py at chosen moments, and at random ones, and continues it.

Usage: crash_driver.py FOLDER [--random KILLS] [--seed SEED]; with --random only the random ones.
"""

import argparse
import itertools
import json
import random
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from crash_frame import before, die, die_at_write, run, run_cases

from papo.commands.training import job as train
from papo.training import callbacks, checkpoints, collect, module

COMMAND = [
    "objective=lab_papo_g",
    "training.num_rollouts=5",
    "training.prompts_per_rollout=4",
    "training.prompts_per_minibatch=2",
    "training.prompts_per_microbatch=1",
    "training.max_resample=1",
    "rollout.num_responses=2",
    "rollout.max_response_tokens=20",
    "evaluation.num_problems=4",
    "evaluation.num_responses=1",
    "validation.every_rollouts=1",
    "callbacks.checkpoint.every_rollouts=2",
    "callbacks.rollout_table.every_rollouts=2",
    "callbacks.rollout_table.num_prompts=1",
    # Weights are held back from the fourth rollout on, after which the run goes back to the second.
    "safeguard=act",
    "safeguard.controller.baseline_rollouts=1",
    "+safeguard.controller.signals.step={columns: [rollout_step], above: 0.5, width: 4.0}",
    "safeguard.detector.baseline_rollouts=2",
    "safeguard.detector.allowance=0.0",
    "safeguard.detector.excess_cap=0.1",
    "safeguard.detector.limit=0.15",
    "~safeguard.detector.signals",
    "+safeguard.detector.signals={step: {columns: [rollout_step], floor: 0.1, memory: 100}}",
]


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
        module.TrainingModule, "_terms", lambda self, *_: self.update_step == 5
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


# About as many calls that write as a whole run makes, and as many seconds as it takes.
NUM_WRITES = 40
NUM_SECONDS = 3.0


def random_kills(folder, *, kills, seed):
    """Kills runs at random until so many kills are done; writes random.json.

    Half of the kills come from outside at a random time, the others right before or after a random
    write. A run is continued until it ends, however often it is killed; then the next one begins.
    """
    choose = random.Random(seed)
    names, done = ["random_1"], {"at a time": 0, "at a write": 0}
    unexpected = []
    while sum(done.values()) < kills or names[-1] is not None:
        if names[-1] is None:
            names[-1] = f"random_{len(names)}"
        is_timed, is_after = choose.random() < 0.5, choose.random() < 0.5
        moment = choose.random()
        number = 1 + int(moment * NUM_WRITES)
        how = (
            {"seconds": moment * NUM_SECONDS}
            if is_timed
            else {"sabotage": lambda n=number, a=is_after: die_at_write(n, afterwards=a)}
        )
        if sum(done.values()) >= kills:
            how = {}
        end = run("train.py", folder / names[-1], *COMMAND, "resume=true", **how)
        if end == signal.SIGKILL:
            done["at a time" if is_timed else "at a write"] += 1
        elif end == 0:
            names.append(None)
        else:
            unexpected.append((names[-1], end))
            names.append(None)
    (folder / "random.json").write_text(
        json.dumps({"runs": names[:-1], "kills": done, "unexpected": unexpected, "seed": seed})
    )


if __name__ == "__main__":
    assert train, "imported here so that no child has to"
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--random", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.random:
        run("train.py", arguments.folder / "uninterrupted", *COMMAND)
        random_kills(arguments.folder, kills=arguments.random, seed=arguments.seed)
        sys.exit()
    cases = {name: [sabotage] for name, sabotage in MOMENTS.items()}
    cases["killed_twice"] = [MOMENTS["between_two_updates"], MOMENTS["while_writing_a_checkpoint"]]
    run_cases(arguments.folder, "train.py", COMMAND, cases)
    random_kills(arguments.folder, kills=3, seed=1)
