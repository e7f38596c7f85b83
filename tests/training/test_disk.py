"""A disk that cannot take the run's checkpoints is refused before the first rollout."""

from collections import namedtuple
from functools import partial

import pytest
import torch
from command import run_command
from lab_module import lab_module, lab_policy, train

from papo.training import RolloutCheckpoint, checkpoint_bytes

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def disk(monkeypatch):
    """Gives every disk so much room."""

    def with_free(free):
        monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(2**60, 0, free))

    return with_free


def test_the_size_of_a_checkpoint_is_told_within_a_tenth(tmp_path):
    adamw = partial(torch.optim.AdamW, lr=1e-3)
    module = lab_module(tmp_path)
    module.policy_module.make_optimizer = adamw
    train(module, tmp_path, RolloutCheckpoint(every_rollouts=2, keep_last=1))
    [file] = (tmp_path / "checkpoints").iterdir()
    told = checkpoint_bytes(module.policy_module.policy, adamw)
    assert told == pytest.approx(file.stat().st_size, rel=0.1)


def test_what_is_not_trained_is_not_written():
    sgd = partial(torch.optim.SGD, lr=1e-3)
    whole = lab_policy()
    size = checkpoint_bytes(whole, sgd)
    for parameter in whole.adapter.vision_tower.parameters():
        parameter.requires_grad = False
    assert 0 < checkpoint_bytes(whole, sgd) < size


@pytest.mark.parametrize(("free", "is_enough"), [(299, False), (300, True)])
def test_the_newest_and_the_next_have_to_lie_side_by_side(free, is_enough, disk, tmp_path):
    disk(free)
    checkpoint = RolloutCheckpoint(every_rollouts=1, keep_last=2)
    if is_enough:
        checkpoint.require_room(tmp_path / "checkpoints", 100)
    else:
        with pytest.raises(ValueError, match="keep_last=2 and the next"):
            checkpoint.require_room(tmp_path / "checkpoints", 100)


def test_those_that_are_there_need_no_more_room(disk, tmp_path):
    disk(100)
    for number in (1, 2):
        (tmp_path / f"rollout_{number:06d}.ckpt").touch()
    RolloutCheckpoint(every_rollouts=1, keep_last=2).require_room(tmp_path, 100)


def test_a_run_ends_before_its_first_rollout(disk, tmp_path):
    disk(1000)
    outcome = run_command(f"run_dir={tmp_path / 'run'}")
    assert outcome.code == 1
    assert "callbacks.checkpoint.keep_last" in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_no_gradient_is_held_while_the_next_rollout_is_sampled(tmp_path):
    module = lab_module(tmp_path)
    train(module, tmp_path)
    assert all(p.grad is None for p in module.policy_module.policy.parameters())
