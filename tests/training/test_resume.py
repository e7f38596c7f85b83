"""A killed run, resumed, ends as the uninterrupted one: to the bit."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch

MOMENTS = (
    "before_the_first_checkpoint",
    "during_a_rollout",
    "between_two_updates",
    "in_the_middle_of_a_row",
    "between_row_and_checkpoint",
    "while_writing_a_checkpoint",
    "after_the_last_checkpoint",
    "killed_twice",
)

TABLES = (
    *("metrics.csv", "rollouts.jsonl", "evaluations.jsonl", "safeguard.jsonl"),
    "best.json",
)
STATES = ("state_dict", "optimizer_states", "papo", "callbacks", "random_state")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory, forked_python):
    if "PAPO_CRASHED_RUNS" in os.environ:
        return Path(os.environ["PAPO_CRASHED_RUNS"])
    folder = tmp_path_factory.mktemp("runs")
    driver = Path(__file__).with_name("crash_driver.py")
    subprocess.run([forked_python, driver, folder], check=True, timeout=280)
    return folder


def outcomes(runs, name):
    return json.loads((runs / "outcomes.json").read_text())[name]


def final_state(run):
    return torch.load(run / "checkpoints" / "rollout_000005.ckpt", weights_only=True)


def assert_equal_to_the_bit(got, expected):
    if isinstance(expected, dict):
        assert got.keys() == expected.keys()
        for key in expected:
            assert_equal_to_the_bit(got[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert len(got) == len(expected)
        for pair in zip(got, expected, strict=True):
            assert_equal_to_the_bit(*pair)
    elif isinstance(expected, torch.Tensor):
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)
    else:
        assert got == expected


def test_the_uninterrupted_run_learns_something(runs):
    run = runs / "uninterrupted"
    assert outcomes(runs, "uninterrupted") == [0], (runs / "uninterrupted.log").read_text()
    assert len((run / "metrics.csv").read_text().splitlines()) == 6
    assert json.loads((run / "result.json").read_text())["status"] == "finished"


def test_the_safeguard_held_back_and_went_back(runs):
    rows = (runs / "uninterrupted" / "safeguard.jsonl").read_text().splitlines()
    acts = [(row["rollout_step"], row["what"]) for row in map(json.loads, rows)]
    assert acts == [(3, "steers"), (4, "rollback")]
    kept = final_state(runs / "uninterrupted")["callbacks"]["Safeguard"]
    assert kept["rollbacks"]["left"] == [[2, 4]]
    assert 0 < kept["controller"]["factor"] < 1


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_was_killed_and_the_resumed_one_finished(runs, moment):
    *killed, last = outcomes(runs, moment)
    assert killed == [signal.SIGKILL] * len(killed), (runs / f"{moment}.log").read_text()
    assert last == 0, (runs / f"{moment}.log").read_text()


@pytest.mark.parametrize("moment", MOMENTS)
def test_weights_optimiser_and_counters_are_those_of_the_uninterrupted_run(runs, moment):
    expected, got = final_state(runs / "uninterrupted"), final_state(runs / moment)
    for part in STATES:
        assert_equal_to_the_bit(got[part], expected[part])


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("table", TABLES)
def test_tables_are_those_of_the_uninterrupted_run(runs, moment, table):
    assert (runs / moment / table).read_bytes() == (runs / "uninterrupted" / table).read_bytes()


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_evaluation_is_that_of_the_uninterrupted_run(runs, moment):
    expected, got = (
        json.loads((runs / name / "result.json").read_text()) for name in ("uninterrupted", moment)
    )
    assert got["evaluation"] == expected["evaluation"]
    assert got["best"] == expected["best"]
    assert got["metrics"] == expected["metrics"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_nothing_unfinished_is_left(runs, moment):
    assert not list((runs / moment).rglob("*.unfinished"))


def test_runs_that_are_killed_at_random_end_as_the_uninterrupted_one(runs):
    """A hundred kills: crash_driver.py FOLDER --random 100 --seed 1, then this file with PAPO_CRASHED_RUNS=FOLDER."""
    said = json.loads((runs / "random.json").read_text())
    assert said["unexpected"] == []
    assert sum(said["kills"].values()) >= 3
    for name in said["runs"]:
        expected, got = final_state(runs / "uninterrupted"), final_state(runs / name)
        for part in STATES:
            assert_equal_to_the_bit(got[part], expected[part])
        for table in TABLES:
            whole = (runs / "uninterrupted" / table).read_bytes()
            assert (runs / name / table).read_bytes() == whole
        results = (
            json.loads((runs / n / "result.json").read_text()) for n in ("uninterrupted", name)
        )
        expected, got = results
        assert (got["evaluation"], got["metrics"]) == (expected["evaluation"], expected["metrics"])
        assert not list((runs / name).rglob("*.unfinished"))


def test_the_policy_moved(runs):
    early = torch.load(
        runs / "uninterrupted" / "checkpoints" / "rollout_000004.ckpt", weights_only=True
    )["state_dict"]
    late = final_state(runs / "uninterrupted")["state_dict"]
    assert any(not torch.equal(early[name], late[name]) for name in late)
