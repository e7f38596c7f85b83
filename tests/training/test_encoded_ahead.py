"""Prompts encoded by threads, ahead of time: the same prompts in the same order, and no thread stays."""

import threading
import time

import pytest
import torch
from lab_module import (
    NUM_RESPONSES,
    lab_module,
    lab_policy,
    lab_problems,
    reward_by_row,
    train,
)

from papo.training import PromptStream
from papo.training.encoded_ahead import EncodedAhead


class Counted:
    """A source that remembers what was read, and breaks where it is told to."""

    def __init__(self, source, broken=()):
        self.source, self.broken, self.read = source, broken, []

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        self.read.append(index)
        if index in self.broken:
            raise ValueError(f"problem {index} is broken")
        return self.source[index]


class InOrder(PromptStream):
    """A stream whose positions are the indices of its source."""

    def index(self, position):
        return position


def ahead(source, *, workers, most=100, policy=None):
    return EncodedAhead(
        policy=policy or lab_policy(),
        prompts=InOrder(source=source, seed=0),
        workers=workers,
        most=most,
    )


def threads():
    return [one for one in threading.enumerate() if one.name.startswith("papo-prompts")]


def assert_threads_end():
    deadline = time.monotonic() + 60
    while threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not threads()


def wait_until_read(source, number):
    deadline = time.monotonic() + 60
    while len(source.read) < number and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(source.read) == number


def test_threads_give_the_same_prompts_in_the_same_order():
    policy = lab_policy()
    alone = ahead(lab_problems(), workers=0, policy=policy)
    several = ahead(lab_problems(), workers=4, policy=policy)
    assert not threads()
    several.begin(range(10))
    positions = [7, 3, 20, 5, 3 + 8, 21]
    for got, expected in zip(several.take(positions), alone.take(positions), strict=True):
        assert got[0].id == expected[0].id
        for name in ("prompt_ids", "position_ids", "patches"):
            assert torch.equal(getattr(got[1], name), getattr(expected[1], name))
    several.close()
    assert_threads_end()


def test_what_is_held_ahead_is_bounded_and_dropped_when_it_is_not_asked_for():
    source = Counted(lab_problems())
    several = ahead(source, workers=2, most=3)
    several.begin(range(100))
    wait_until_read(source, 3)
    assert sorted(several._begun) == sorted(source.read) == [0, 1, 2]
    several.begin([2, 50])
    assert sorted(several._begun) == [2, 50]
    several.take([50, 2, 60])
    assert sorted(source.read) == [0, 1, 2, 50, 60]  # 2 and 50 once
    assert not several._begun
    several.close()
    assert_threads_end()


@pytest.mark.parametrize("workers", [0, 3])
def test_the_first_bad_prompt_is_the_error_and_nothing_hangs(workers):
    several = ahead(Counted(lab_problems(), broken=(4, 6)), workers=workers)
    # One that nobody asks for is no error.
    several.begin([6])
    several.begin([2])
    assert len(several.take([1, 2, 3])) == 3
    with pytest.raises(ValueError, match="problem 4 is broken"):
        several.take([2, 4, 5, 6, 7])
    several.close()
    assert_threads_end()


def one_run(folder, workers, **settings):
    """The weights and metrics of a run with dynamic sampling, and which problems it read."""
    folder.mkdir()
    source = Counted(lab_problems())
    module = lab_module(
        folder, source=source, reward=reward_by_row(NUM_RESPONSES), num_rollouts=3, **settings
    )
    module.collector.reader.encoded.workers = workers
    weights = train(module, folder)
    return weights, module.last_step.metrics, source.read


def test_a_run_with_threads_is_the_run_without_to_the_bit(tmp_path):
    weights, metrics, read = one_run(tmp_path / "alone", 0)
    with_threads, same_metrics, also_read = one_run(tmp_path / "threads", 3)
    assert metrics == same_metrics
    assert all(torch.equal(with_threads[name], value) for name, value in weights.items())
    # The last rollout has none after it to read for.
    assert sorted(read) == sorted(also_read)
    assert_threads_end()


def test_the_next_rollout_is_read_while_this_one_is_trained(tmp_path, monkeypatch):
    source = Counted(lab_problems())
    module = lab_module(tmp_path, source=source, reward=reward_by_row(NUM_RESPONSES))
    module.collector.reader.encoded.workers = 2
    begun = []

    def update(rollout):
        begun.append(len(module.collector.reader.encoded._begun))
        raise RuntimeError("the update failed")

    monkeypatch.setattr(module, "_update", update)
    with pytest.raises(RuntimeError, match="the update failed"):
        train(module, tmp_path)
    assert begun == [4]
    assert_threads_end()
