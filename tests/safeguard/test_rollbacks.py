"""To which checkpoint a run goes back, and how often."""

import json

import pytest

from papo.safeguard import Rollbacks


def rollbacks(**changes):
    return Rollbacks(**{"max_rollbacks": 2, "quiet": 0.25, "shrink": 0.5, **changes})


def seen(one, suspicions, start=1):
    for rollout, suspicion in enumerate(suspicions, start=start):
        one.note(rollout, suspicion)
    return one


def test_the_newest_checkpoint_from_before_the_sums_rose_is_chosen():
    one = seen(rollbacks(), [0.0, 0.1, 0.25, 0.6, 0.9, 1.1])
    assert one.choose([1, 2, 3, 4, 5]) == 3
    assert one.choose([2, 4]) == 2
    assert one.choose([4, 5]) is None
    assert one.choose([]) is None


def test_what_rose_and_fell_again_was_no_collapse():
    assert seen(rollbacks(), [0.0, 0.9, 0.1, 1.2]).choose([1, 2, 3]) == 3


def test_a_run_that_was_never_quiet_has_nothing_to_go_back_to():
    assert seen(rollbacks(), [0.5, 1.5]).choose([1]) is None


def test_where_a_rollback_went_on_is_healthy_and_what_it_left_is_not():
    one = seen(rollbacks(), [0.0, 0.0, 0.5, 0.9, 1.1])
    one.went(back_to=2, rollout=5)
    one.note(6, 1.1)
    # Checkpoint 5 has the weights of 2, checkpoints 3 and 4 are what was left.
    assert one.choose([2, 3, 4, 5]) == 5
    assert one.choose([2, 3, 4]) == 2
    assert one.choose([3, 4]) is None


def test_an_alarm_after_the_last_rollback_ends_the_run():
    one, ended = rollbacks(), []
    for rollout in (1, 2, 3):
        one.went(back_to=None, rollout=rollout)
        ended.append(one.ended)
    assert ended == [False, False, True]


def test_continued_from_its_state_it_chooses_the_same():
    one = seen(rollbacks(), [0.0, 0.0, 0.5, 1.1])
    one.went(back_to=2, rollout=4)
    other = rollbacks()
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    for there in ([2, 3, 4], [2, 3], [3]):
        assert other.choose(there) == one.choose(there)
    assert (other.done, other.ended) == (1, False)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"max_rollbacks": -1}, "max_rollbacks"),
        ({"quiet": 1.0}, "quiet"),
        ({"shrink": 1.0}, "shrink"),
    ],
    ids=str,
)
def test_impossible_numbers_are_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        rollbacks(**changes)
