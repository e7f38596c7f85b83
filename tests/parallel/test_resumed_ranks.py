"""A run on ranks goes on bit for bit on as many, and on any other number to rounding."""

import os
import signal

import numpy as np
import pytest
from cases import at_rollout, trained
from pool import on_ranks, outcomes

pytestmark = pytest.mark.dist

LONG = {"num_rollouts": 3}


def trained_with_checkpoints(ranks, folder, first=None, kill=None, stop=None):
    """Trains 3 rollouts with a checkpoint each; `kill` and `stop` are (rank, rollout) of a signal."""
    from papo.training.checkpoints import RolloutCheckpoint, checkpoint_path

    def strike(number):
        def act():
            os.kill(os.getpid(), number)

        return act

    callbacks = [RolloutCheckpoint(every_rollouts=1, keep_last=3)]
    for target, number in ((kill, signal.SIGKILL), (stop, signal.SIGUSR2)):
        if target is not None and target[0] == ranks.rank:
            callbacks.insert(0, at_rollout(target[1], strike(number)))
    checkpoint = None if first is None else checkpoint_path(folder / "checkpoints", first)
    return trained(ranks, *callbacks, folder=folder, checkpoint=checkpoint, **LONG)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return on_ranks(trained_with_checkpoints, tmp_path_factory.mktemp("run"))


def digest(facts):
    return {name: value.tobytes() for name, value in facts["weights"].items()}


def test_ranks_end_with_one_policy(uninterrupted):
    first, second = uninterrupted
    assert digest(first) == digest(second)
    assert first["metrics"] == second["metrics"]


def test_after_a_killed_rank_the_run_goes_on_to_the_same_bits(tmp_path, uninterrupted):
    dead, survivor = reversed(outcomes(trained_with_checkpoints, tmp_path, None, (1, 2)))
    assert dead == ("ended", -signal.SIGKILL)
    assert survivor[0] == "raised"
    assert survivor[1].startswith("PeerFailed: rank 1: it ended without a word")
    again = on_ranks(trained_with_checkpoints, tmp_path, 1)
    assert [digest(one) for one in again] == [digest(one) for one in uninterrupted]


def test_a_signal_to_one_rank_stops_all_after_the_same_saved_rollout(tmp_path, uninterrupted):
    for kind, text in outcomes(trained_with_checkpoints, tmp_path, None, None, (1, 2)):
        assert kind == "raised"
        assert text.startswith("Interrupted: SIGUSR2")
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "rollout_000001.ckpt",
        "rollout_000002.ckpt",
    ]
    again = on_ranks(trained_with_checkpoints, tmp_path, 2)
    assert [digest(one) for one in again] == [digest(one) for one in uninterrupted]


@pytest.mark.parametrize("size", [1, 3])
def test_another_number_of_ranks_goes_on_to_rounding(size, tmp_path, uninterrupted):
    on_ranks(trained_with_checkpoints, tmp_path)
    again = on_ranks(trained_with_checkpoints, tmp_path, 1, size=size)
    for mine in again:
        assert mine["texts"] == uninterrupted[0]["texts"]
        for name, value in mine["weights"].items():
            assert np.abs(value - uninterrupted[0]["weights"][name]).max() <= 1e-12
