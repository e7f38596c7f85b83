"""Seconds per step of several runs: by hand, beside the published ones, and what is refused."""

import json
import math
import sys

import pytest

from papo.analysis.pages.costs import cost_markdown, cost_notes, read_cost, step_ratio, step_seconds
from papo.storage.published import published_results
from scripts import compare_costs

CONFIG = {
    "model": {"hub_id": "some/model"},
    "rollout": {"num_responses": 5},
    "objective": {"gamma": 0.0},
    "num_threads": 1,
    "run_dir": "a",
}


def write_run(folder, steps, *, config=CONFIG, tokens=(), versions=None):
    """Writes a run folder from [(rollout, reward, score, update)]."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"versions": versions or {"torch": "2.13"}}))
    (folder / "config.json").write_text(json.dumps(config))
    rows = ["rollout_step,rollout,reward,score,update"]
    rows += [f"{n},{','.join(map(str, step))}" for n, step in enumerate(steps, start=1)]
    (folder / "timings.csv").write_text("\n".join(rows) + "\n")
    lines = ["rollout_step,response/tokens_mean", *(f"{n},{t}" for n, t in enumerate(tokens, 1))]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_step_is_the_sum_of_its_phases_and_the_first_is_left_out(tmp_path):
    steps = [(90, 0, 0, 9), (10, 1, 2, 7), (20, 1, 4, 15)]
    cost = read_cost(write_run(tmp_path / "a", steps, tokens=[1, 30, 50]), skip=1)
    assert cost.seconds == (20.0, 40.0)
    assert cost.phases == {"rollout": 15.0, "reward": 1.0, "score": 3.0, "update": 11.0}
    assert cost.response_tokens == 40.0
    assert step_seconds(cost).value == 30.0
    # t(0.975; 1) = 12.706 standard errors of 10 seconds; no step takes less than none.
    assert (step_seconds(cost).low, step_seconds(cost).high) == pytest.approx(
        (0.0, 157.062), abs=1e-3
    )
    assert step_seconds(read_cost(tmp_path / "a", skip=2)) is None
    assert read_cost(tmp_path / "a", skip=0).seconds[0] == 99.0


def test_the_ratio_is_of_mean_seconds(tmp_path):
    grpo = read_cost(write_run(tmp_path / "a", [(8, 0, 1, 11), (8, 0, 1, 11)]), skip=0)
    papo = read_cost(write_run(tmp_path / "b", [(8, 0, 2, 14), (8, 0, 2, 16)]), skip=0)
    ratio = step_ratio(grpo, papo)
    assert ratio.value == pytest.approx(25 / 20)
    # The second alone scatters: log of the ratio -/+ 12.706 * 1 / 25.
    reach = math.exp(12.7062 / 25)
    assert (ratio.low, ratio.high) == pytest.approx((1.25 / reach, 1.25 * reach), rel=1e-4)


def test_the_published_seconds_stand_below(tmp_path):
    cost = read_cost(write_run(tmp_path / "a", [(1, 1, 1, 1)]), skip=0)
    text = cost_markdown([cost, cost])
    rows = [line.split("|") for line in text.splitlines()]
    assert len({len(row) for row in rows}) == 1
    published = published_results()["cost_per_step_seconds"]
    shown = {row[1].strip(): (row[3].strip(), row[4].strip()) for row in rows[4:]}
    assert shown["published, GRPO 3B"] == (str(published["grpo_3b"]), "")
    # 428.1 / 360.9 and 367.1 / 258.5
    assert shown["published, PAPO 3B"] == (str(published["papo_3b"]), "1.19")
    assert shown["published, PAPO 7B"] == (str(published["papo_7b"]), "1.42")


def test_runs_that_differ_in_more_than_the_method_are_named(tmp_path):
    same = {**CONFIG, "objective": {"gamma": 0.02}, "run_dir": "b"}
    other = {**same, "rollout": {"num_responses": 8}, "num_threads": 2}
    first, second, third = (
        read_cost(write_run(tmp_path / name, [(1, 1, 1, 1)], config=config, versions=v), skip=0)
        for name, config, v in (
            ("a", CONFIG, None),
            ("b", same, None),
            ("c", other, {"torch": "2.7"}),
        )
    )
    assert not any("differ" in note for note in cost_notes([first, second]))
    notes = [note for note in cost_notes([first, third]) if "differ" in note]
    assert len(notes) == 2
    assert notes[0].endswith("settings: num_threads is 1 and 2; rollout.num_responses is 5 and 8")
    assert notes[1].endswith("versions: torch is '2.13' and '2.7'")


def test_the_command_refuses_what_has_no_times(tmp_path, monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["compare_costs.py", *map(str, arguments)])
        return compare_costs.main(), capsys.readouterr()

    short = write_run(tmp_path / "short", [(1, 1, 1, 1)])
    code, said = run(short)
    assert code == 1
    assert "no timed step after the first 1" in said.err
    assert run(tmp_path / "nowhere")[0] == 1
    code, said = run(short, "--skip", 0, "--output", tmp_path / "cost.md")
    assert code == 0
    assert (tmp_path / "cost.md").read_text() == said.out
    (short / "timings.csv").write_text("rollout_step,rollout\n1,half")
    assert run(short, "--skip", 0)[0] == 1
    write_run(tmp_path / "whole", [(1, 1, 1, 1)] * 2)
    (tmp_path / "whole" / "config.json").write_text("{")
    assert "config.json is damaged" in run(tmp_path / "whole")[1].err
