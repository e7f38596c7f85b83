"""The model of a step: what it reproduces, and which way each of its parts pulls."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import step_model
from benchmarks.step_model import (
    Code,
    Rates,
    Workload,
    loop_steps,
    main,
    measured_rates,
    model_step,
    published_work,
    variants,
)

# Worked out by hand for the same rates before the code was: decode, score, update and whole step in seconds.
BY_HAND = {
    "the starting point": (623, 104, 204, 974),
    "+ head in bf16 with float32 sums": (623, 88, 171, 923),
    "+ vision windows batched": (623, 57, 119, 825),
    "+ a bf16 copy of the weights, 4 groups a pass": (623, 52, 107, 808),
    "+ top-k before the sort": (508, 52, 107, 694),
    "+ CUDA graphs over a static cache": (98, 52, 107, 284),
    "or a serving engine": (35, 52, 107, 221),
    "+ fused attention and norms, no recomputation": (35, 43, 74, 177),
    "+ pictures prepared during the update": (35, 43, 74, 163),
}

AHEAD = "+ one step ahead, the engine on a second GPU"


@pytest.fixture(scope="module")
def work():
    return published_work()


@pytest.mark.parametrize("name", BY_HAND)
def test_it_agrees_with_the_table_by_hand_within_a_tenth(name, work):
    step = model_step(work, variants()[name], Rates())
    found = (step.decode, step.score, step.update, step.seconds)
    assert found == pytest.approx(BY_HAND[name], rel=0.1)


def test_the_rows_of_the_table_are_those_worked_out_by_hand_and_one_step_ahead():
    assert list(variants()) == [*BY_HAND, AHEAD]


def test_one_step_ahead_hides_the_shorter_of_rollout_and_learning(work):
    ready = variants()["+ pictures prepared during the update"]
    before, ahead = (
        model_step(work, code, rates)
        for code, rates in ((ready, Rates()), (variants()[AHEAD], Rates()))
    )
    rollout, learning = before.decode + before.prefill, before.score + before.update
    assert before.seconds == pytest.approx(rollout + learning)
    assert rollout < learning
    assert ahead.seconds == pytest.approx(learning)
    # As much work in less time, on two GPUs.
    assert ahead.step_mfu == pytest.approx(before.step_mfu * before.seconds / ahead.seconds / 2)
    # A slow engine is not hidden: of it the update is.
    slow = model_step(work, variants()[AHEAD], Rates(engine_tokens=2e3))
    assert slow.seconds == pytest.approx(slow.decode + slow.prefill)


def test_the_lengths_have_the_mean_that_is_asked_for(work):
    assert work.responses.shape == (384, 5)
    assert work.responses.mean() == pytest.approx(400, rel=0.03)
    assert work.responses.max() == step_model.LIMIT


def test_one_prompt_by_hand():
    # A second per step, 10^15 of everything else, and nothing for the rest: counts are what is left.
    fast = dict.fromkeys(("peak", "blocks", "head_float32", "bytes_per_second"), 1e15)
    free = dict.fromkeys(("vision_launches", "decode_head", "sort", "picture"), 0.0)
    rates = Rates(decode_host=1.0, **fast, **free)
    work = Workload(model="3B", prompt_tokens=1024, grid=(48, 64), responses=np.full((1, 5), 100))
    step = model_step(work, Code(), rates)
    assert step.decode == 100
    weights = step_model.PARAMETERS["3B"] / 1e15
    assert step.score == pytest.approx(2 * (work.flops.total / 1e15 + 6 * weights))
    # Forward, recomputed, and a backward pass of two; the weights are cast twice and their gradients summed.
    assert step.update == pytest.approx(4 * work.flops.total / 1e15 + (12 + 18) * weights)
    assert step.update_mfu == pytest.approx(3 * work.flops.total / 1e15 / step.update)
    assert step.step_mfu == pytest.approx(6 * work.flops.total / 1e15 / step.seconds)


def test_a_batch_of_rows_is_as_long_as_its_longest():
    assert loop_steps(np.array([3, 9, 4, 1]), 2) == 9 + 4


def test_measured_rates_take_the_place_of_assumed_ones(tmp_path, capsys):
    answers = [
        {"cell": "ceilings", "rates": {"peak": 5e14, "of_another_version": 1.0}},
        {"cell": "decode"},
    ]
    rates, names = measured_rates(answers, Rates())
    assert (rates, names) == (replace(Rates(), peak=5e14), ["peak"])
    file = tmp_path / "answers.jsonl"
    file.write_text("\n".join(map(json.dumps, answers)) + '\n{"cell": "cut o')
    main(["--rates", str(file)])
    said = capsys.readouterr().out
    assert "peak: 5e+14 (measured)" in said
    assert "blocks: 3.6e+14 (assumed)" in said
