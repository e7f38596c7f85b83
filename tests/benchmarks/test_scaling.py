"""The model of a step on many GPUs: its counts, and the bounds that the deal keeps on its lengths."""

import numpy as np
import pytest

from benchmarks import scaling
from benchmarks.scaling import Batch, dealt, drawn, efficiency, engine_seconds, loop_seconds, waste
from benchmarks.step_model import LIMIT


@pytest.mark.parametrize("mean", scaling.MEANS)
def test_the_deal_keeps_its_bounds_on_the_published_shape(mean):
    wastes = {
        (ranks, by): np.mean(
            [
                waste(
                    (batch := drawn(mean, seed)).group_tokens,
                    dealt(batch, ranks, by=by),
                    ranks,
                    scaling.MINIBATCH,
                )
                for seed in range(4)
            ]
        )
        for ranks, by in ((8, "tokens"), (8, "prompts"), (64, "tokens"), (8, "places"))
    }
    assert wastes[8, "tokens"] <= 0.05
    assert wastes[8, "prompts"] <= 0.05
    assert wastes[64, "tokens"] <= 0.10
    # What dealing is for: in the order of the stream a rank waits much longer.
    assert wastes[8, "places"] > 5 * wastes[8, "tokens"]


def test_waste_is_the_time_of_the_busiest_ranks_over_an_even_share():
    # First step 6 and 2, second 4 and 4: 10 where 8 would do.
    assert waste([6, 2, 4, 4], [0, 1, 0, 1], 2, 2) == pytest.approx(10 / 8 - 1)


def test_lengths_are_cut_at_the_limit_and_have_the_mean_that_is_said():
    responses = drawn(300, 0, num_prompts=4000).responses
    assert responses.max() == LIMIT
    # The hundredth at the limit adds 0.01 x (2,048 - 300) = 17 tokens.
    assert responses.mean() == pytest.approx(317, rel=0.02)
    assert (drawn(300, 0).responses == drawn(300, 0).responses).all()


def test_a_loop_takes_its_longest_rows_and_an_engine_fills_its_slots():
    rows = np.array([100] * 255 + [2000])
    assert loop_seconds(rows) == pytest.approx(60.0)
    # 100 steps of 256 rows, then 1,900 of one.
    alone = scaling.ENGINE_SECONDS + scaling.ENGINE_SECONDS_PER_ROW
    full = scaling.ENGINE_SECONDS + 256 * scaling.ENGINE_SECONDS_PER_ROW
    assert engine_seconds(rows) == pytest.approx(100 * full + 1900 * alone)


def test_one_gpu_moves_nothing_and_many_move_twice_their_gradients():
    batch = drawn(300, 0, num_prompts=8)
    flops = scaling.batch_flops(batch, "3B")
    one = scaling.step(batch, flops, model="3B", gpus=1, engine="loop", per_minibatch=8)
    two = scaling.step(batch, flops, model="3B", gpus=2, engine="loop", per_minibatch=8)
    assert (one.gradient_bytes, one.exchange_bytes) == (0, 0)
    assert two.gradient_bytes == pytest.approx(4 * scaling.PARAMETERS["3B"])
    assert two.exchange_bytes > 0
    assert two.train < 0.7 * one.train


def test_equal_groups_scale_without_loss():
    batch = Batch(prompts=np.full(16, 406), responses=np.full((16, 5), 100))
    costs = batch.group_tokens
    assert waste(costs, dealt(batch, 8, by="tokens", per_minibatch=16), 8, 16) == 0


@pytest.mark.parametrize("engine", ["loop", "engine"])
def test_as_much_work_per_gpu_stays_above_nine_tenths(engine):
    assert efficiency("3B", 300, 8, engine=engine, weak=True, seed=0) >= scaling.WEAK_GOAL
