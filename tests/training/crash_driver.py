"""Kills train.py at chosen moments and continues it. Usage: crash_driver.py FOLDER."""

import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from crash_frame import before, die, run_cases

import train
from papo.training import callbacks, checkpoints, collect, papo

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


if __name__ == "__main__":
    assert train, "imported here so that no child has to"
    cases = {name: [sabotage] for name, sabotage in MOMENTS.items()}
    cases["killed_twice"] = [MOMENTS["between_two_updates"], MOMENTS["while_writing_a_checkpoint"]]
    run_cases(Path(sys.argv[1]), "train.py", COMMAND, cases)
