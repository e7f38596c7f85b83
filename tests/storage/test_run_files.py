"""What all run folders share: how one begins and ends, and its tables read by whoever reads them."""

import json
import math

import pytest

from papo.storage.run_folder import begin_run, holds_run, write_result
from papo.storage.tables import append_csv, last_row, read_numbers, read_readable

START = {"config": {"seed": 3, "a": {"b": 1}}, "config_text": "seed: 3\n", "overrides": ["seed=3"]}


def test_a_run_begins_with_its_settings_and_says_last_what_it_is(tmp_path):
    folder = tmp_path / "run"
    assert not holds_run(folder)
    begin_run(folder, **START, products=["metrics.csv"], checkpoint={"location": "here"})
    assert holds_run(folder)
    assert json.loads((folder / "config.json").read_text()) == START["config"]
    assert (folder / "config.yaml").read_text() == START["config_text"]
    run = json.loads((folder / "run.json").read_text())
    assert (run["seed"], run["overrides"]) == (3, ["seed=3"])
    assert run["checkpoint"] == {"location": "here"}
    write_result(folder, run, "finished", metrics={"x": 1})
    assert json.loads((folder / "result.json").read_text()) == {
        "status": "finished",
        "overrides": ["seed=3"],
        "seed": 3,
        "metrics": {"x": 1},
    }


def test_a_run_does_not_begin_over_what_nobody_claims(tmp_path):
    (tmp_path / "metrics.csv").write_text("a\n1\n")
    with pytest.raises(ValueError, match=r"holds metrics\.csv but no run\.json"):
        begin_run(tmp_path, **START, products=["rollouts.jsonl", "metrics.csv"])
    assert not holds_run(tmp_path)
    assert not (tmp_path / "config.yaml").exists()


def test_what_is_appended_is_read_back_by_every_reader(tmp_path):
    table, notes = tmp_path / "metrics.csv", []
    rows = [{"rollout_step": 1, "x": 0.1}, {"rollout_step": 2, "x": math.nan}]
    for row in rows:
        append_csv(table, row)
    strict, tolerant = read_numbers(table, remedy=""), read_readable(table, notes)
    assert repr(strict) == repr(tolerant)
    assert strict["rollout_step"] == (1.0, 2.0)
    assert strict["x"][0] == 0.1
    assert math.isnan(strict["x"][1])
    assert (last_row(table), notes) == ({"rollout_step": 2.0}, [])


def test_half_a_row_is_refused_by_one_reader_and_left_out_by_the_other(tmp_path):
    table, notes = tmp_path / "metrics.csv", []
    table.write_text("rollout_step,x\n1,0.5\n2\n3,odd\n")
    with pytest.raises(ValueError, match="line 3: 1 cells under 2 columns"):
        read_numbers(table, remedy="")
    found = read_readable(table, notes)
    assert found["rollout_step"] == (1.0, 3.0)
    assert math.isnan(found["x"][1])
    assert notes == ["Damaged rows left out of metrics.csv: 1."]
    assert (last_row(tmp_path / "none.csv"), read_readable(tmp_path / "none.csv", notes)) == (
        {},
        {},
    )
