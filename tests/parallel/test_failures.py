"""No rank waits for one that is gone: all end, and say where it began and why."""

import os
import signal
import time

import pytest
from cases import built, trained
from pool import outcomes

pytestmark = pytest.mark.dist


def fails_on(ranks, rank, kind):
    """One rank fails while the other is busy, or waits for it."""
    ranks.gather("here")
    if ranks.rank == rank:
        if kind == "error":
            raise ZeroDivisionError("division by zero")
        os.kill(os.getpid(), {"kill": signal.SIGKILL, "term": signal.SIGTERM}[kind])
        time.sleep(30)
    return ranks.gather("never")


def busy_while_another_fails(ranks):
    ranks.gather("here")
    if ranks.rank == 1:
        raise ZeroDivisionError("division by zero")
    time.sleep(60)


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_on_one_rank_ends_all_with_the_rank_and_the_reason(rank):
    ends = outcomes(fails_on, rank, "error", timeout=30)
    assert ends[rank][1].startswith("ZeroDivisionError: division by zero")
    assert ends[1 - rank][1].startswith(
        f"PeerFailed: rank {rank}: ZeroDivisionError: division by zero"
    )


def test_a_rank_that_computes_for_long_hears_of_it():
    ends = outcomes(busy_while_another_fails, timeout=30)
    assert ends[0][1].startswith("PeerFailed: rank 1: ZeroDivisionError")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_dead_rank_is_named(rank):
    ends = outcomes(fails_on, rank, "kill", timeout=30)
    assert ends[rank] == ("ended", -signal.SIGKILL)
    assert ends[1 - rank][1].startswith(f"PeerFailed: rank {rank}: it ended without a word")


def test_a_signal_that_ends_one_rank_ends_all():
    for kind, text in outcomes(fails_on, 1, "term", timeout=30):
        assert (kind, text.splitlines()[0]) == ("raised", "Interrupted: SIGTERM")


def silent(ranks):
    """Rank 1 stops, as on a machine that hangs."""
    from papo.parallel import watch

    watch.SILENT_SECONDS = 3.0
    ranks.gather("here")
    if ranks.rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(60)


def test_a_silent_rank_is_named():
    ends = outcomes(silent, timeout=10)
    assert ends[0][1].startswith("PeerFailed: rank 1: silent for 3 s")


def broken_on_one_rank(ranks, folder):
    """The policy of rank 1 alone gives NaN."""
    import torch
    from lab_module import train

    module = built(ranks, folder)
    if ranks.rank == 1:
        score = module._score

        def broken(part):
            scores = score(part)
            scores["image"].logprobs.data[0, 0] = torch.nan
            return scores

        module._score = broken
    train(module, folder)


def test_a_non_finite_loss_on_one_rank_ends_all_and_keeps_its_batch(tmp_path):
    ends = outcomes(broken_on_one_rank, tmp_path)
    assert ends[1][1].startswith("NonFiniteLoss: ")
    assert ends[0][1].startswith("PeerFailed: rank 1: NonFiniteLoss: ")
    assert [path.name for path in (tmp_path / "non_finite").iterdir()] == [
        "rollout_000001_rank_1.pt"
    ]


def without_the_sum(ranks):
    """A negative control: ranks that keep their own gradients."""
    ranks.sum_gradients = lambda parameters: None
    return trained(ranks)


def test_ranks_that_train_two_policies_are_found_out():
    for kind, text in outcomes(without_the_sum):
        assert kind == "raised"
        assert "all ranks have the same weights; rank 0 has" in text
