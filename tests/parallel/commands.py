"""Runs train.py or evaluate.py on the ranks of a pool: what `torchrun train.py` does, without its imports."""

import contextlib
import importlib
import io
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]

EVALUATION = (
    "benchmark.limit=3",
    "rollout.num_responses=2",
    "rollout.max_response_tokens=24",
    "evaluation.tokens_per_batch=100",
    "devices=2",
)
TRAINING = (
    "training.num_rollouts=3",
    "training.prompts_per_rollout=4",
    "training.prompts_per_minibatch=4",
    "training.prompts_per_microbatch=1",
    "rollout.num_responses=2",
    "evaluation.num_problems=3",
    "evaluation.num_responses=1",
    "callbacks.checkpoint.every_rollouts=1",
    "callbacks.rollout_table.every_rollouts=2",
    "trainer.devices=2",
    "safeguard=off",
)


def command(ranks, name, arguments, prepare=None):
    """Returns the exit code of a rank, and what it wrote to stdout and stderr.

    Args:
        ranks: of the pool.
        name: `train` or `evaluate`.
        arguments: of every rank, or a list of them by rank.
        prepare: called with the module and the ranks before it begins.
    """
    import composing_once

    from papo.commands import front_door

    composing_once.install()
    door = importlib.import_module(f"papo.commands.{name}")
    if isinstance(arguments[0], list):
        arguments = arguments[ranks.rank]
    sys.argv = [str(TESTS.parent / f"{name}.py"), *arguments]
    front_door._ranks.append(ranks)
    if prepare is not None:
        prepare(door, ranks)
    out, err = io.StringIO(), io.StringIO()
    # Errors of silent ranks go past what is redirected.
    sys.__stderr__ = err
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = front_door.command(door.main, on_ranks=True)
        except SystemExit as exit:
            code = exit.code
    return code, out.getvalue(), err.getvalue()
