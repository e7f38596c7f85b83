"""One sweep from several starts: what is pooled, what is refused, and how sure it is."""

import csv
import json
import math
import statistics
import sys

import numpy as np
import pytest
from scipy import stats

from papo.analysis.sweeps.pooled_report import pooled_lead, write_pooled_report
from papo.analysis.sweeps.pooling import read_starts, summarize_starts
from papo.statistics import (
    detectable_within_starts,
    minimum_detectable_difference,
    paired_t,
    paired_t_over_starts,
    paired_t_within_starts,
)

GRPO = {"a": {1: 0.50, 2: 0.60, 3: 0.40}, "b": {1: 0.10, 2: 0.12, 3: 0.15}}
DAPO = {"a": {1: 0.60, 2: 0.72, 3: 0.55}, "b": {1: 0.12, 2: 0.11, 3: 0.19}}


def write_run(folder, arm, seed, accuracy, *, model="warm_1", prompts=(16, 32), **settings):
    run = folder / arm / f"seed_{seed}"
    run.mkdir(parents=True)
    config = {
        "seed": seed,
        "run_dir": str(run),
        "data": {"seed": seed, "prior": "training"},
        "model": {"path": model, "dtype": "float32"},
        "rollout": {"num_responses": 8},
        "training": {"num_rollouts": 2},
        "sweep": {"name": "method", "arm": arm, "arms": {"dapo": {}, "grpo": {}}},
    }
    for key, value in settings.items():
        group, _, name = key.partition("__")
        config.setdefault(group, {})[name] = value
    (run / "config.json").write_text(json.dumps(config))
    (run / "run.json").write_text(json.dumps({"overrides": [], "seed": seed, "git_commit": "abc"}))
    (run / "result.json").write_text(json.dumps({"status": "finished"}))
    with (run / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompts_drawn", "resample/drawn_correct"])
        writer.writerows(zip(prompts, (accuracy - 0.1, accuracy), strict=True))


@pytest.fixture
def folders(tmp_path):
    for start in GRPO:
        for arm, accuracies in (("grpo", GRPO), ("dapo", DAPO)):
            for seed, accuracy in accuracies[start].items():
                drawn = (16, 32) if arm == "grpo" else (20, 50)
                folder = tmp_path / f"start_{start}"
                write_run(folder, arm, seed, accuracy, model=f"warm_{start}", prompts=drawn)
    return [tmp_path / "start_a", tmp_path / "start_b"]


def differences(start):
    return {seed: DAPO[start][seed] - GRPO[start][seed] for seed in GRPO[start]}


def test_arms_are_paired_by_start_and_seed(folders):
    pooled = summarize_starts(read_starts(folders), baseline=None)
    comparison = pooled.comparisons["dapo"]["accuracy_end"]
    assert pooled.arms == ("grpo", "dapo")
    for start in "ab":
        assert comparison.differences[f"start_{start}"] == pytest.approx(differences(start))
    means = [statistics.fmean(differences(start).values()) for start in "ab"]
    for tested in (comparison.over_starts, comparison.within_starts):
        assert tested.difference.interval.value == pytest.approx(statistics.fmean(means))


def test_over_starts_the_starts_are_the_units(folders):
    pooled = summarize_starts(read_starts(folders), baseline=None)
    interval = pooled.comparisons["dapo"]["accuracy_end"].over_starts.difference.interval
    means = [statistics.fmean(differences(start).values()) for start in "ab"]
    error = statistics.stdev(means) / math.sqrt(2)
    low, high = stats.t.interval(0.95, 1, loc=statistics.fmean(means), scale=error)
    assert (interval.low, interval.high) == pytest.approx((low, high))


def test_within_starts_with_equal_seeds_is_the_t_interval_of_the_mean_over_starts(folders):
    pooled = summarize_starts(read_starts(folders), baseline=None)
    tested = pooled.comparisons["dapo"]["accuracy_end"].within_starts
    per_seed = [(differences("a")[seed] + differences("b")[seed]) / 2 for seed in (1, 2, 3)]
    expected = paired_t([0.0] * 3, per_seed)
    interval = tested.difference.interval
    assert (interval.low, interval.high, tested.difference.p_value) == pytest.approx(
        (expected.interval.low, expected.interval.high, expected.p_value)
    )
    assert tested.detectable == pytest.approx(minimum_detectable_difference(per_seed))


def test_within_starts_with_other_seeds_in_each_start_adds_their_variances():
    first, second = {1: 0.1, 2: 0.3, 3: 0.2}, {4: 0.5, 5: 0.1}
    found = paired_t_within_starts([first, second]).interval
    variance = statistics.variance(first.values()) / 3 + statistics.variance(second.values()) / 2
    reach = stats.t.ppf(0.975, 1) * math.sqrt(variance) / 2
    assert found.value == pytest.approx((0.2 + 0.3) / 2)
    assert found.high - found.value == pytest.approx(reach)


def test_intervals_hold_the_true_difference_as_often_as_they_say():
    # Starts vary (0.05), seeds vary together over starts (0.02), the rest is a run's own (0.03).
    generator = np.random.default_rng(1)
    shifts = np.array([0.02, -0.01, 0.05])
    trials, held = 400, {"over": 0, "within": 0, "seeds as units, of other starts": 0}
    for _ in range(trials):
        seeds, runs = generator.normal(0, 0.02, 6), generator.normal(0, 0.03, (2, 3, 6))
        drawn = generator.normal(0, 0.05, 3)[:, None] + seeds + runs[0]
        fixed = shifts[:, None] + seeds + runs[1]
        as_maps = [[dict(enumerate(row)) for row in grid.tolist()] for grid in (drawn, fixed)]
        over = paired_t_over_starts(as_maps[0]).interval
        within = paired_t_within_starts(as_maps[1]).interval
        naive = paired_t_within_starts(as_maps[0]).interval
        held["over"] += over.low <= 0.0 <= over.high
        held["within"] += within.low <= shifts.mean() <= within.high
        held["seeds as units, of other starts"] += naive.low <= 0.0 <= naive.high
    # Four standard errors of a share of 400 around 0.95 are 0.044. Over starts a little is lost: what
    # a seed does in all starts alike does not vary between them.
    assert held["within"] / trials == pytest.approx(0.95, abs=0.044)
    assert held["over"] / trials == pytest.approx(0.95, abs=0.06)
    assert held["seeds as units, of other starts"] / trials < 0.8


@pytest.mark.parametrize("num_seeds", [3, 8])
def test_the_smallest_difference_found_is_found_in_four_of_five_sweeps(num_seeds):
    # Differences whose spread is exactly 1, so that the sweeps can be drawn from the same.
    seen = stats.zscore(np.arange(num_seeds, dtype=float) ** 2, ddof=1).tolist()
    for detectable in (
        minimum_detectable_difference(seen),
        detectable_within_starts([dict(enumerate(seen)), dict(enumerate(seen))]),
    ):
        sweeps = np.random.default_rng(2).normal(detectable, 1.0, (20_000, num_seeds))
        power = np.mean(stats.ttest_1samp(sweeps, 0.0, axis=1).pvalue < 0.05)
        assert power == pytest.approx(0.8, abs=0.012)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"training__lr": 0.1}, r"training\.lr of dapo is not set in start_a and 0\.1 in start_b"),
        (
            {"data__prior": "counter"},
            r"data\.prior of dapo is 'training' in .* 'counter' or .* in start_b",
        ),
        ({"model": "warm_a"}, "both start from warm_a"),
    ],
)
def test_folders_that_differ_in_more_than_the_start_are_refused(folders, change, match):
    write_run(folders[1], "dapo", 9, 0.5, **({"model": "warm_b"} | change))
    with pytest.raises(ValueError, match=match):
        read_starts(folders)


def test_folders_that_cannot_be_pooled_say_why(folders, tmp_path):
    with pytest.raises(ValueError, match="each once"):
        read_starts([folders[0], folders[0]])
    write_run(tmp_path / "other", "papo", 1, 0.5)
    with pytest.raises(ValueError, match="no arm in common"):
        read_starts([folders[0], tmp_path / "other"])
    write_run(tmp_path / "half", "dapo", 1, 0.5)
    with pytest.raises(ValueError, match=r"half: --baseline is an arm .* 'grpo'"):
        summarize_starts(read_starts([folders[0], tmp_path / "half"]), baseline=None)


def test_a_start_with_a_single_seed_counts_over_starts_alone(folders, tmp_path):
    for arm, accuracy in (("grpo", 0.2), ("dapo", 0.5)):
        write_run(tmp_path / "single", arm, 1, accuracy, model="warm_c")
    pooled = summarize_starts(read_starts([*folders, tmp_path / "single"]), baseline=None)
    comparison = pooled.comparisons["dapo"]["accuracy_end"]
    assert comparison.differences["single"] == {1: pytest.approx(0.3)}
    assert comparison.within_starts is None
    assert (comparison.over_starts.difference.interval.value) == pytest.approx(
        statistics.fmean([*(statistics.fmean(differences(s).values()) for s in "ab"), 0.3])
    )
    files = write_pooled_report(pooled, tmp_path / "report")
    assert "+30.0" in files[3].read_text()


def test_a_measure_that_the_baseline_lacks_everywhere_stops_no_report(folders, tmp_path):
    for folder in folders:
        evaluation = folder / "dapo" / "seed_1" / "evaluation"
        evaluation.mkdir()
        average = {"name": "general", "view": "image", "interval": {"value": 0.5}}
        (evaluation / "summary.json").write_text(json.dumps({"averages": [average]}))
    pooled = summarize_starts(read_starts(folders), baseline=None)
    assert "general" not in pooled.comparisons["dapo"]
    files = write_pooled_report(pooled, tmp_path / "report")
    with files[0].open(newline="") as file:
        rows = {(row["arm"], row["measure"]): row for row in csv.DictReader(file)}
    row = rows["dapo", "general"]
    assert (row["num_runs"], float(row["mean"]), row["difference"]) == ("2", 0.5, "")


def test_a_pooled_report_has_the_tenths_of_each_start(folders, tmp_path):
    pooled = summarize_starts(read_starts(folders), baseline=None)
    text = write_pooled_report(pooled, tmp_path / "report")[3].read_text()
    curves = text[text.index("## Learning curves") : text.index("## Cost")]
    assert "start_a. Accuracy of the drawn responses" in curves
    # Start b of grpo: 0.10, 0.12 and 0.15, of two rollouts each, 0.1 less in the first.
    assert "| grpo | 2 | 12 |" in curves


def test_the_command_pools_folders_into_an_output_folder(folders, tmp_path, capsys, monkeypatch):
    from scripts.report_sweep import main

    command = ["report_sweep.py", *map(str, folders)]
    monkeypatch.setattr(sys, "argv", command)
    assert main() == 1
    assert "--output" in capsys.readouterr().err
    output = tmp_path / "pooled"
    monkeypatch.setattr(sys, "argv", [*command, "--output", str(output), "--arms", "dapo"])
    assert main() == 0
    assert "12 finished jobs from 2 starts (start_a, start_b): 2 arms" in capsys.readouterr().out
    with (output / "pooled.csv").open(newline="") as file:
        rows = {(row["arm"], row["measure"]): row for row in csv.DictReader(file)}
    means = [statistics.fmean(differences(start).values()) for start in "ab"]
    row = rows["dapo", "accuracy_end"]
    assert float(row["difference"]) == pytest.approx(statistics.fmean(means))
    assert float(row["over_starts_high"]) > float(row["within_starts_high"])
    assert rows["grpo", "collapsed"]["num_runs"] == "6"
    with (output / "report.csv").open(newline="") as file:
        starts = [row["start"] for row in csv.DictReader(file)]
    assert sorted(set(starts)) == ["start_a", "start_b"]
    with (output / "runs.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 12
    text = (output / "report.md").read_text()
    for heading in ("Over starts", "Within these starts", "Each start", "Measure by measure"):
        assert f"## {heading}\n" in text
    page = (output / "report.html").read_text()
    assert page.count("<polyline") == 2 * 2, "in each start an arm, and the baseline beside it"


def test_names_of_starts_stay_text(tmp_path):
    for number in (1, 2):
        folder = tmp_path / f"=<b>{number}"
        for arm in ("grpo", "dapo"):
            for seed in (1, 2):
                write_run(folder, arm, seed, 0.4 + 0.1 * seed, model=f"warm_{number}")
    pooled = summarize_starts(read_starts(sorted(tmp_path.iterdir())), baseline=None)
    files = write_pooled_report(pooled, tmp_path / "report")
    texts = {file.name: file.read_text() for file in files}
    assert "<b>" in pooled_lead(pooled)
    assert "<b>" not in texts["report.md"]
    assert "<b>" not in texts["report.html"]
    assert "'=<b>1" in texts["report.csv"]
    assert "\n=" not in texts["report.csv"] + texts["runs.csv"] + texts["pooled.csv"]
