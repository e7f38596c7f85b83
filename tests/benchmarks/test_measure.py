import json
import subprocess
import sys
import time
from importlib.metadata import version

import pytest
import torch

from benchmarks.measure import (
    PeakMemory,
    cpu_seconds,
    environment,
    in_fresh_process,
    matmul_flops_per_second,
    ratios,
    spread,
    take_turns,
)


def test_a_spread_is_the_median_with_its_extremes():
    odd = spread([3.0, 1.0, 10.0])
    assert (odd.median, odd.lowest, odd.highest, odd.repetitions) == (3.0, 1.0, 10.0, 3)
    assert spread([4.0, 1.0, 2.0, 100.0]).median == 3.0


def test_a_spread_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="--repetitions above 0"):
        spread([])


def test_ratios_compare_within_a_round_and_not_across_rounds():
    # Per round 2, 2 and 2; the quotient of the medians would be 4 / 1 = 4.
    assert ratios([2.0, 4.0, 20.0], [1.0, 2.0, 10.0]).median == 2.0
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0], [1.0, 2.0])


def test_contestants_take_turns_and_every_second_round_runs_backwards():
    calls = []

    def contestant(name):
        return lambda: calls.append(name) or float(len(calls))

    seconds = take_turns({name: contestant(name) for name in "abc"}, repetitions=3, warm_ups=0)
    assert "".join(calls) == "abc" + "cba" + "abc"
    assert seconds == {"a": [1.0, 6.0, 7.0], "b": [2.0, 5.0, 8.0], "c": [3.0, 4.0, 9.0]}


def test_warm_ups_are_run_and_thrown_away():
    calls = []
    seconds = take_turns({"a": lambda: calls.append("a") or 1.0}, repetitions=2, warm_ups=3)
    assert len(calls) == 5
    assert seconds == {"a": [1.0, 1.0]}


def test_waiting_costs_no_cpu_seconds():
    assert cpu_seconds(lambda: time.sleep(0.2)) < 0.1
    assert cpu_seconds(lambda: sum(range(10**6))) > 0.001


def test_the_peak_of_a_matrix_product_is_positive_and_finite():
    assert 1e8 < matmul_flops_per_second(size=128, repetitions=3) < 1e14


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_is_what_was_live_at_once_and_not_what_was_allocated_in_total():
    mebibyte = 2**20
    code = f"""
import json, torch
from benchmarks.measure import PeakMemory
torch.ones({64 * mebibyte})  # 256 MiB of floats, gone before: not counted
with PeakMemory() as peak:
    for _ in range(4):
        torch.ones({16 * mebibyte})
    both = torch.ones({16 * mebibyte}), torch.ones({16 * mebibyte})
print(json.dumps({{"bytes": peak.bytes}}))
"""
    finished = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"MALLOC_MMAP_THRESHOLD_": str(mebibyte), "OMP_NUM_THREADS": "1", "PYTHONPATH": "."},
    )
    assert json.loads(finished.stdout)["bytes"] / mebibyte == pytest.approx(128, abs=8)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_of_an_empty_block_is_almost_nothing():
    with PeakMemory() as peak:
        pass
    assert 0 <= peak.bytes < 2**20


def test_a_failing_measurement_says_what_the_process_said():
    with pytest.raises(RuntimeError, match="unrecognized arguments: --nonsense"):
        in_fresh_process("json.tool", ["--nonsense"])


def test_the_environment_names_commit_versions_and_threads():
    found = environment()
    assert found["versions"]["torch"] == version("torch")
    assert found["threads"] == torch.get_num_threads()
    assert found["commit"]
    assert found["device"]
