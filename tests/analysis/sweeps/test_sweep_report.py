"""A sweep's report says what its files say, counts what is missing, and trusts none of their text."""

import csv
import json
import math
import re
import statistics
import sys
from html.parser import HTMLParser

import pytest
from analysis.chromium import PHONE
from scipy import stats

from papo.analysis.sweeps.cells import published_cell
from papo.analysis.sweeps.comparison import summarize_sweep
from papo.analysis.sweeps.curves import arm_curves, learning_curves, per_rollout
from papo.analysis.sweeps.report import (
    html_report,
    markdown_report,
    published_differences,
    write_report,
)
from papo.analysis.sweeps.tables import csv_rows, tenths_tables
from papo.statistics import judge_collapse
from papo.storage.published import published_results
from papo.storage.sweep_folders import read_sweep

SETS = ("training prior", "counter-prior")
# arm -> seed -> accuracy of the end; hand-made so that the paired test differs from the unpaired one.
ACCURACIES = {
    "gamma_0.0": {1: 0.50, 2: 0.60, 3: 0.70, 4: 0.10},
    "gamma_0.1": {1: 0.56, 2: 0.65, 3: 0.77, 5: 0.99},
    "gamma_0.02": {1: 0.40, 2: 0.58, 3: 0.60},
}


# 20 rollouts with one more value, of which the last tenth are two: 0.39 and what follows.
RISE = (*[0.2 + 0.05 * i for i in range(13)], 0.8, 0.7, 0.6, 0.5, 0.4, 0.39)


def write_run(
    folder, *, arm="gamma_0.0", seed=1, accuracies=(0.2, 0.4, 0.6), status="finished", sweep=None,
    columns=None, evaluation=None, overrides=(), commit="abc", error=None, settings=None,
):  # fmt: skip
    folder.mkdir(parents=True)
    if sweep is None:
        sweep = {
            "name": "lab_gamma",
            "arm": arm,
            "published": {"gamma_0.02": ["ablations/gamma/0.02"]},
        }
    config = ({"seed": seed, "sweep": sweep} if sweep else {}) | (settings or {})
    (folder / "config.json").write_text(json.dumps(config))
    run = {"overrides": [f"seed={seed}", *overrides], "seed": seed, "git_commit": commit}
    (folder / "run.json").write_text(json.dumps(run))
    columns = {"resample/drawn_correct": accuracies, "reward/accuracy": [1.0] * len(accuracies)} | (
        columns or {}
    )
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    if status is not None:
        result = {"status": status, "evaluation": evaluation}
        (folder / "result.json").write_text(
            json.dumps(result | ({"error": error} if error else {}))
        )


def lab_evaluation(accuracy, perception):
    report = {"accuracy": {"value": accuracy}, "shares": {"perception": {"value": perception}}}
    return {"before": {}, "after": dict.fromkeys(SETS, report)}


@pytest.fixture
def folder(tmp_path):
    for arm, seeds in ACCURACIES.items():
        for seed, accuracy in seeds.items():
            write_run(
                tmp_path / arm / f"seed_{seed}",
                arm=arm,
                seed=seed,
                accuracies=[0.1, 0.2, accuracy - 0.1, accuracy],
                evaluation=lab_evaluation(accuracy, (1 - accuracy) * 0.75),
                columns={"loss/perception_kl": [0.1, 0.2, 0.3, 0.8]} if arm != "gamma_0.0" else {},
            )
    return tmp_path


@pytest.fixture
def summary(folder):
    return summarize_sweep(read_sweep(folder), baseline=None)


def test_the_scores_of_a_run_are_what_its_files_say(folder):
    run = read_sweep(folder).of_arm("gamma_0.1")[0]
    # Dynamic sampling biases reward/accuracy (1.0 here), so it is not what is read.
    assert run.scores["accuracy_curve"] == pytest.approx((0.1 + 0.2 + 0.46 + 0.56) / 4)
    assert run.scores["accuracy_end"] == 0.56
    assert run.scores["accuracy, counter-prior"] == 0.56
    assert run.scores["perception errors, training prior"] == pytest.approx(0.33)
    assert run.scores["perception share of errors, training prior"] == pytest.approx(0.75)


def test_two_seeds_that_agree_are_no_certainty_and_no_share_leaves_its_bounds(tmp_path):
    for arm, ends in {"grpo": (0.1, 0.9), "papo": (0.2, 1.0), "alone": (0.5,)}.items():
        for seed, end in enumerate(ends, start=1):
            write_run(tmp_path / arm / str(seed), arm=arm, seed=seed, accuracies=[end, end])
    summary = summarize_sweep(read_sweep(tmp_path), baseline=None)
    text = markdown_report(summary)
    assert "| 50.0 [0.0, 100.0] |" in text
    assert "| 50.0 [n = 1: no interval] |" in text
    # Equal differences: a test of signs with two seeds has p = 1/2, and no power is known.
    assert "| papo | 2 | +10.0 [n = 2: no interval] | 0.500 | 0.500 |  |" in text
    rows = {(row["arm"], row["measure"]): row for row in csv_rows(summary)}
    row = rows["papo", "accuracy_end"]
    assert (row["difference"], row["difference_low"], row["detectable"]) == (
        pytest.approx(0.1),
        "",
        "",
    )


def test_the_end_is_the_last_tenth_of_the_rollouts(tmp_path):
    accuracies = [0.0] * 18 + [0.4, 0.8]
    write_run(tmp_path / "a", accuracies=accuracies)
    assert read_sweep(tmp_path).runs[0].scores["accuracy_end"] == pytest.approx(0.6)


def test_the_mean_over_seeds_has_students_interval(summary):
    score = summary.scores["gamma_0.0"]["accuracy_end"]
    values = list(ACCURACIES["gamma_0.0"].values())
    mean, error = statistics.fmean(values), statistics.stdev(values) / 2
    low, high = stats.t.interval(0.95, 3, loc=mean, scale=error)
    assert score.mean == pytest.approx(mean)
    assert (score.interval.low, score.interval.high) == pytest.approx((low, high))


def test_arms_are_compared_over_common_seeds_alone(summary):
    comparison = summary.comparisons["gamma_0.1"]["accuracy_end"]
    first, second = [0.50, 0.60, 0.70], [0.56, 0.65, 0.77]
    assert comparison.difference.number == 3
    assert comparison.difference.interval.value == pytest.approx(0.06)
    p_value = stats.ttest_rel(second, first).pvalue
    assert comparison.difference.p_value == pytest.approx(p_value)
    assert "accuracy_end" not in summary.comparisons["gamma_0.0"]
    # Benjamini and Hochberg over the two arms, by hand: smallest p times 2, the other at most once.
    other = summary.comparisons["gamma_0.02"]["accuracy_end"]
    assert other.difference.p_value > p_value
    assert comparison.q_value == pytest.approx(min(2 * p_value, other.difference.p_value))
    # Power of a paired t test at the stated difference, by the noncentral t distribution.
    error = statistics.stdev([b - a for a, b in zip(first, second, strict=True)]) / 3**0.5
    critical = stats.t.ppf(0.975, 2)
    power = stats.nct.sf(critical, 2, comparison.detectable / error)
    assert power == pytest.approx(0.8, abs=0.005)


def test_the_baseline_can_be_chosen_and_must_exist(folder):
    chosen = summarize_sweep(read_sweep(folder), baseline="gamma_0.1")
    assert chosen.comparisons["gamma_0.0"]["accuracy_end"].difference.interval.value == (
        pytest.approx(-0.06)
    )
    with pytest.raises(
        ValueError, match=r"--baseline.*'grpo'.*gamma_0\.0, gamma_0\.02, gamma_0\.1"
    ):
        summarize_sweep(read_sweep(folder), baseline="grpo")


def test_the_published_row_stands_beside_its_arm(summary):
    general, vision, overall = published_results()["ablations"]["gamma"][0.02]
    cell = published_cell(summary, "gamma_0.02")
    assert cell == f"gamma 0.02: {general} / {vision} / {overall}"
    assert published_cell(summary, "gamma_0.1") == ""
    assert cell in markdown_report(summary)
    assert cell in html_report(summary).replace("\u00a0", " ")


def test_evaluations_below_a_run_give_the_columns_of_the_paper(folder):
    def evaluate(seed, general, view="image"):
        evaluation = folder / "gamma_0.02" / f"seed_{seed}" / "evaluation"
        evaluation.mkdir()
        (evaluation / "run.json").write_text(json.dumps({"checkpoint": {}}))
        averages = [
            {"name": "general", "view": view, "interval": {"value": general}},
            {"name": "overall", "view": view, "interval": None},
        ]
        (evaluation / "summary.json").write_text(json.dumps({"averages": averages}))

    evaluate(1, 0.5)
    evaluate(2, 0.6)
    evaluate(3, 0.9, view="blank")
    summary = summarize_sweep(read_sweep(folder), baseline=None)
    assert summary.measures[0] == "general"
    assert summary.scores["gamma_0.02"]["general"].values == {1: 0.5, 2: 0.6}
    assert "general" not in summary.scores["gamma_0.0"]
    assert "overall" not in summary.measures
    row = next(
        row
        for row in csv_rows(summary)
        if (row["arm"], row["measure"]) == ("gamma_0.02", "general")
    )
    assert (row["mean"], row["published"]) == (pytest.approx(0.55), "gamma 0.02: 53.39")


def test_jobs_without_a_result_are_listed_and_not_counted(folder):
    write_run(folder / "gamma_0.1" / "seed_4", arm="gamma_0.1", seed=4, status=None)
    write_run(
        folder / "gamma_0.02" / "seed_4", arm="gamma_0.02", seed=4, status="failed", error="no disk"
    )
    late = folder / "gamma_0.4" / "seed_4"
    late.mkdir(parents=True)
    (late / "failure.json").write_text(
        json.dumps({"error": "no weights", "overrides": ["seed=4", "+sweep=lab_gamma"]})
    )
    damaged = folder / "gamma_0.0" / "seed_5"
    write_run(damaged, seed=5)
    (damaged / "metrics.csv").write_text("")
    sweep = read_sweep(folder)
    lost = {(job.arm, job.seed): (job.status, job.reason) for job in sweep.lost}
    assert lost["gamma_0.1", 4] == ("unfinished", "")
    assert lost["gamma_0.02", 4] == ("failed", "no disk")
    assert lost["gamma_0.4", 4] == ("failed", "no weights")
    assert lost["gamma_0.0", 5][0] == "damaged"
    # The grid of arms and seeds: what left no trace is missing.
    assert {key for key, (status, _) in lost.items() if status == "missing"} == {
        ("gamma_0.02", 5),
        *(("gamma_0.4", seed) for seed in (1, 2, 3, 5)),
    }
    assert len(sweep.runs) == sum(map(len, ACCURACIES.values()))
    page = html_report(summarize_sweep(sweep, baseline=None))
    assert "no weights" in page
    assert "9 more jobs have no result" in page


def test_a_job_with_a_damaged_record_is_lost_and_stops_no_report(folder):
    for name in ("config.json", "run.json"):
        (folder / "gamma_0.1" / f"seed_{1 if name == 'run.json' else 2}" / name).write_text("{")
    sweep = read_sweep(folder)
    damaged = {(job.arm, job.seed) for job in sweep.lost if job.status == "damaged"}
    assert damaged == {("gamma_0.1", 1), ("gamma_0.1", 2)}
    assert {(job.arm, job.seed) for job in sweep.lost if job.status == "missing"} == {
        ("gamma_0.0", 5), ("gamma_0.1", 4), ("gamma_0.02", 4), ("gamma_0.02", 5)
    }  # fmt: skip
    assert {run.arm for run in sweep.runs} == set(ACCURACIES)


SPOILT = {
    "empty": b"",
    "half": b'{"status": "fini',
    "nested too deep": b"[" * 100_000,
    "no text": b"\xff\xfe\x00{",
    "of another type": b'["a list"]',
}


@pytest.mark.parametrize("name", ["config.json", "run.json", "result.json", "metrics.csv"])
@pytest.mark.parametrize("how", SPOILT)
def test_a_damaged_file_is_named_with_what_to_do(folder, name, how):
    file = folder / "gamma_0.1" / "seed_1" / name
    file.write_bytes(SPOILT[how])
    [job] = [job for job in read_sweep(folder).lost if job.status == "damaged"]
    assert (job.arm, job.seed) == ("gamma_0.1", 1)
    assert job.reason.startswith(f"{file} is damaged")
    assert "repeat the command of the sweep" in job.reason


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", {"sweep": "lab_gamma"}),
        ("config.json", {"sweep": {"name": ["lab_gamma"]}}),
        ("config.json", {"sweep": {"published": "gamma"}}),
        ("run.json", {"overrides": "seed=1", "seed": 1}),
        ("run.json", {"overrides": [], "seed": [1]}),
        ("result.json", {"status": ["finished"]}),
    ],
)
def test_a_value_of_another_type_is_damage_too(folder, name, content):
    file = folder / "gamma_0.1" / "seed_1" / name
    file.write_text(json.dumps(content))
    [job] = [job for job in read_sweep(folder).lost if job.status == "damaged"]
    assert job.reason.startswith(f"{file} is damaged")


def test_a_result_of_another_form_is_damaged_and_stops_no_report(folder):
    write_run(folder / "gamma_0.0" / "seed_6", seed=6, evaluation=["no", "mapping"])
    damaged = [job for job in read_sweep(folder).lost if job.status == "damaged"]
    assert [job.folder for job in damaged] == ["gamma_0.0/seed_6"]


def test_a_damaged_job_of_an_unnamed_multirun_renames_no_arm(tmp_path):
    for number, objective in enumerate(["grpo", "papo_g", "dapo"]):
        overrides = [f"objective={objective}", "training.num_rollouts=10"]
        write_run(tmp_path / str(number), sweep={}, overrides=overrides)
    (tmp_path / "2" / "run.json").write_text("{")
    sweep = read_sweep(tmp_path)
    assert sweep.arms == ("objective=grpo", "objective=papo_g")
    assert [(job.folder, job.seed, job.status) for job in sweep.lost] == [("2", None, "damaged")]


def test_the_tenths_of_the_run_are_means_over_its_rollouts_and_seeds(tmp_path):
    for seed in (1, 2):
        # 20 rollouts, two a tenth: 0.01, 0.02 | 0.03, 0.04 | ...; the second seed has 0.2 more.
        accuracies = [0.01 * (1 + i) + 0.2 * (seed - 1) for i in range(20)]
        write_run(tmp_path / f"a{seed}", seed=seed, accuracies=accuracies)
        write_run(
            tmp_path / f"b{seed}", arm="<b>", seed=seed, accuracies=accuracies,
            columns={"loss/perception_kl": [0.001 * (1 + i) * seed for i in range(20)]},
        )  # fmt: skip
    summary = summarize_sweep(read_sweep(tmp_path), baseline=None)
    accuracy, perception = tenths_tables(summary)
    assert accuracy.columns == ("arm", *map(str, range(1, 11)))
    # 1.5 and 21.5 -> 11.5, then 2 more each; printed to even.
    means = [(0.01 * (2 * i + 1) + 0.01 * (2 * i + 2)) / 2 + 0.1 for i in range(10)]
    cells = tuple(f"{100 * mean:.0f}" for mean in means)
    assert [row[0] for row in accuracy.rows] == ["gamma_0.0", "<b>"]
    assert accuracy.rows[0][1:] == accuracy.rows[1][1:] == cells
    # The baseline has none; 0.001 and 0.002 times 1 and 2: 0.00225.
    assert [row[0] for row in perception.rows] == ["<b>"]
    assert perception.rows[0][1:3] == ("0.00225", "0.00525")
    text = markdown_report(summary)
    row = "| &lt;b&gt; | " + " | ".join(cells) + " |"
    assert row in text[text.index("## Learning curves") : text.index("## Compared")]
    assert accuracy.caption in html_report(summary)


def test_a_run_of_few_rollouts_has_as_many_columns_as_rollouts(tmp_path):
    write_run(tmp_path / "a", accuracies=(0.2, 0.4, 0.6))
    (table,) = tenths_tables(summarize_sweep(read_sweep(tmp_path), baseline=None))
    assert (table.columns, table.rows) == (
        ("arm", "1", "2", "3"),
        (("gamma_0.0", "20", "40", "60"),),
    )


def test_collapse_is_told_by_the_one_rule_beside_what_else_rises(tmp_path):
    write_run(
        tmp_path / "a", seed=1, accuracies=[*RISE, 0.39],
        columns={"loss/perception_kl": [*[0.1] * 18, 7.0, 3.0]},
    )  # fmt: skip
    write_run(
        tmp_path / "b", seed=2, accuracies=[*RISE, 0.39],
        columns={"loss/perception_kl": [*[0.3] * 18, 0.1, 1.0]},
    )  # fmt: skip
    summary = summarize_sweep(read_sweep(tmp_path), baseline=None)
    signs = summary.signs["gamma_0.0"]
    # Equal falls; the KL of the second stays below a nat.
    assert signs.collapsed == (1,)
    assert signs.verdicts[1] == judge_collapse(read_sweep(tmp_path).of_arm("gamma_0.0")[0].curves)
    assert f"1 of 2 (seed at rollout: 1 at {signs.verdicts[1].rollout})" in markdown_report(summary)
    # The highest tenth: of two rollouts each.
    highest = ((7.0 + 3.0) / 2 + (0.1 + 1.0) / 2) / 2
    assert signs.rise == {"perception KL": (pytest.approx(0.2), pytest.approx(highest))}


def test_an_unnamed_multirun_is_told_apart_by_its_overrides(tmp_path):
    for number, (objective, seed) in enumerate([("grpo", 1), ("grpo", 2), ("papo_g", 1)]):
        write_run(
            tmp_path / str(number), seed=seed, sweep={},
            overrides=[f"objective={objective}", "training.num_rollouts=10"],
        )  # fmt: skip
    sweep = read_sweep(tmp_path)
    assert sweep.arms == ("objective=grpo", "objective=papo_g")
    assert sweep.name == tmp_path.name
    assert [(job.arm, job.seed, job.status) for job in sweep.lost] == [
        ("objective=papo_g", 2, "missing")
    ]


def test_folders_that_cannot_be_reported_on_say_why(tmp_path, folder):
    with pytest.raises(ValueError, match="no folder"):
        read_sweep(tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="no finished job"):
        read_sweep(empty)
    write_run(empty / "a", status="failed", error="boom")
    with pytest.raises(ValueError, match="1 without a result; the first: a failed boom"):
        read_sweep(empty)


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"sweep": {"name": "method", "arm": "grpo"}}, "several sweeps"),
        ({"seed": 1}, "both seed 1 of gamma_0.0"),
        ({"seed": 9, "accuracies": [0.1]}, "same rollouts"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(folder, more, match):
    write_run(folder / "other", **more)
    with pytest.raises(ValueError, match=match):
        read_sweep(folder)


class Tags(HTMLParser):
    """Counts the tags of a page and keeps what could reach the network."""

    def __init__(self):
        super().__init__()
        self.tags, self.addresses = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href") and not v.startswith("#")]


def test_the_page_draws_every_arm_and_needs_no_network(summary):
    page = html_report(summary)
    tags = Tags()
    tags.feed(page)
    assert tags.addresses == ["data:,"]
    assert "script" not in tags.tags
    # Accuracy: two arms, the baseline beside each. Perception KL: the two arms that have one.
    assert tags.tags.count("polyline") == 4 + 2
    assert not re.search("https?:", page)


def test_a_curve_is_the_mean_over_seeds_with_students_interval(summary):
    first, second = learning_curves(summary)
    assert (first.title, second.title) == ("gamma_0.02", "gamma_0.1")
    # Three seeds end at 0.40, 0.58 and 0.60; four of the baseline at 0.50, 0.60, 0.70 and 0.10.
    assert "gamma_0.02 from 0.1 to 0.527" in first.spoken
    assert "gamma_0.0 from 0.1 to 0.475" in first.spoken
    ends = [0.40, 0.58, 0.60]
    low, high = stats.t.interval(0.95, 2, loc=statistics.fmean(ends), scale=stats.sem(ends))
    [arm] = arm_curves({"a": [per_rollout([0.1, end]) for end in ends]})
    lows, highs = arm.series(1, bounds=(0.0, 1.0)).band
    assert (lows[1], highs[1]) == (pytest.approx(low), pytest.approx(high))
    assert all(math.isnan(end[0]) for end in (lows, highs)), "seeds that agree have no interval"


def test_a_mean_ends_where_the_first_seed_does():
    [arm] = arm_curves({"a": [per_rollout([0.1, 0.2, 0.3]), per_rollout([0.3, 0.4])]})
    values = arm.series(1).values
    assert values[:2] == pytest.approx([0.2, 0.3])
    assert math.isnan(values[2])


def test_the_page_marks_collapsed_runs_and_draws_what_was_published(tmp_path):
    for arm, ends in {"grpo": (0.5, 0.6), "papo": (0.1, 0.7)}.items():
        for seed, end in enumerate(ends, start=1):
            write_run(
                tmp_path / arm / str(seed),
                sweep={
                    "name": "s",
                    "arm": arm,
                    "published": {
                        "grpo": ["ablations/collapse_prevention/grpo"],
                        "papo": ["ablations/collapse_prevention/double_entropy"],
                    },
                },
                seed=seed,
                accuracies=[*RISE, end],
                columns={
                    "loss/perception_kl": [9.0 if end == 0.1 else 0.1] * 20,
                    "reward/error_format": [*[0.1] * 18, *[0.5 if end == 0.1 else 0.1] * 2],
                },
            )
    summary = summarize_sweep(read_sweep(tmp_path), baseline=None)
    rows = published_results()["ablations"]["collapse_prevention"]
    overall = [
        row["overall"] if isinstance(row, dict) else row[2]
        for row in (rows["double_entropy"], rows["grpo"])
    ]
    assert published_differences(summary) == {"papo": pytest.approx(overall[0] - overall[1])}
    page = html_report(summary)
    assert "(1 of 2 collapsed)" in page
    assert "published: overall accuracy" in page


def test_published_rows_are_compared_within_one_table_and_one_model(tmp_path):
    """A 7B row beside a 3B baseline would show the model's size as the method's gain."""
    published = {
        "grpo": ["main/grpo_3b", "main/grpo_7b"],
        "large": ["main/papo_g_7b"],
        "small": ["main/papo_g_3b"],
        "other_model": ["main/papo_g_qwen3_vl_2b"],
        "other_table": ["ablations/gamma/0.02"],
    }
    for arm in published:
        sweep = {"name": "s", "arm": arm, "published": published}
        write_run(tmp_path / arm, sweep=sweep, arm=arm)
    summary = summarize_sweep(read_sweep(tmp_path), baseline="grpo")
    assert published_differences(summary) == {
        "large": pytest.approx(61.66 - 58.78),
        "small": pytest.approx(49.92 - 47.92),
    }


def test_the_page_fits_a_phone_in_light_and_dark(browser, summary, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(html_report(summary))
    tab = browser.open(file, size=PHONE)
    assert tab.run("document.querySelectorAll('svg').length") > 0
    assert tab.faults() == []
    tab.dark()
    assert tab.faults() == []


def test_text_of_files_stays_text(tmp_path):
    hostile = '<script>alert(1)</script>"|\n| & <b>'
    for seed in (1, 2):
        write_run(tmp_path / str(seed), arm=hostile, seed=seed, commit=hostile)
    write_run(tmp_path / "3", arm=hostile, seed=3, status="failed", error=hostile)
    summary = summarize_sweep(read_sweep(tmp_path), baseline=None)
    page = html_report(summary)
    tags = Tags()
    tags.feed(page)
    assert not {"script", "b"} & set(tags.tags)
    text = markdown_report(summary)
    assert not re.search(r"<(script|b)>", text)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.startswith("| ") and line.endswith(" |") for line in rows)


def test_no_cell_of_a_csv_file_is_a_formula(tmp_path):
    for number, seed in enumerate((1, 2)):
        write_run(tmp_path / f"={number}", arm="=HYPERLINK(1)", seed=seed)
    write_report(summarize_sweep(read_sweep(tmp_path), baseline=None), tmp_path / "report")
    for name in ("report.csv", "runs.csv"):
        with (tmp_path / "report" / name).open(newline="") as file:
            _, *rows = csv.reader(file)
        assert rows
        assert any("'=HYPERLINK(1)" in row for row in rows)
        assert not any(cell.startswith(("=", "+", "@")) for row in rows for cell in row)


def test_an_added_override_names_its_arm_without_the_plus(tmp_path):
    for name in ("a", "b"):
        write_run(tmp_path / name, sweep={}, overrides=[f"+experiment={name}"])
    assert read_sweep(tmp_path).arms == ("experiment=a", "experiment=b")


def test_a_run_whose_accuracy_is_no_number_is_damaged_and_stops_no_report(tmp_path):
    for seed in (1, 2, 3):
        write_run(tmp_path / f"a{seed}", seed=seed)
        broken = float("nan") if seed == 3 else 0.5
        write_run(tmp_path / f"b{seed}", arm="gamma_0.1", seed=seed, accuracies=(0.2, broken, 0.6))
    summary = summarize_sweep(read_sweep(tmp_path), baseline=None)
    (lost,) = summary.sweep.lost
    assert (lost.folder, lost.status) == ("b3", "damaged")
    assert "accuracy_curve is nan" in lost.reason
    assert summary.comparisons["gamma_0.1"]["accuracy_end"].difference.number == 2


def test_the_command_writes_everything_and_ends_clearly(folder, capsys, monkeypatch):
    from scripts.report_sweep import main

    monkeypatch.setattr(sys, "argv", ["report_sweep.py", str(folder)])
    assert main() == 0
    out = capsys.readouterr().out
    assert "11 finished jobs: 3 arms" in out
    for name in ("report.csv", "runs.csv", "report.md", "report.html"):
        assert (folder / name).stat().st_size > 100
    with (folder / "runs.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 11
    monkeypatch.setattr(sys, "argv", ["report_sweep.py", str(folder / "nowhere")])
    assert main() == 1
    assert "error: there is no folder" in capsys.readouterr().err


def test_a_single_seed_has_no_interval_and_no_comparison(tmp_path):
    write_run(tmp_path / "a", arm="gamma_0.0")
    write_run(tmp_path / "b", arm="gamma_0.1")
    summary = summarize_sweep(read_sweep(tmp_path), baseline=None)
    assert summary.scores["gamma_0.1"]["accuracy_end"].interval is None
    assert summary.comparisons["gamma_0.1"] == {}
    files = write_report(summary, tmp_path / "report")
    assert "No other arm has two seeds in common" in files[-1].read_text()


def test_arms_stand_as_the_sweep_lists_them_the_baseline_first(tmp_path):
    listed = ["dapo", "zebra", "grpo", "papo_g", "never_run"]
    for arm in ("grpo", "papo_g", "zebra", "dapo"):
        for seed in (1, 2):
            sweep = {"name": "method", "arm": arm, "arms": {name: {} for name in listed}}
            write_run(tmp_path / f"{arm}_{seed}", arm=arm, seed=seed, sweep=sweep)
    order = ("grpo", "dapo", "zebra", "papo_g")
    summary = summarize_sweep(read_sweep(tmp_path), baseline=None)
    assert summary.arms == order
    files = dict(
        zip(("arms", "runs", "md", "html"), write_report(summary, tmp_path / "report"), strict=True)
    )
    for name in ("arms", "runs"):
        with files[name].open(newline="") as file:
            assert tuple(dict.fromkeys(row["arm"] for row in csv.DictReader(file))) == order
    for name, row in (("md", "\n| {} |"), ("html", '<th scope="row">{}</th>')):
        text = files[name].read_text()
        places = [text.index(row.format(arm)) for arm in order]
        assert places == sorted(places)


def test_values_that_a_multirun_varied_give_its_arms_their_order(tmp_path):
    for arm in ("exact", "official", "paper"):
        write_run(tmp_path / arm, sweep={"name": "fidelity", "arm": arm})
    assert read_sweep(tmp_path).arms == ("exact", "official", "paper")
    (tmp_path / "multirun.yaml").write_text(
        "hydra: {sweeper: {params: {seed: '1,2', fidelity: 'official,paper,exact'}}}"
    )
    assert read_sweep(tmp_path).arms == ("official", "paper", "exact")
    # Written out, the last of these has 9 ** 12 letters.
    layers = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    record = ["a0: &a0 [x, x, x, x, x, x, x, x, x]", *layers]
    for damaged in ("hydra: [", "\n".join([*record, "hydra: {sweeper: {params: {seed: *a11}}}"])):
        (tmp_path / "multirun.yaml").write_text(damaged)
        assert read_sweep(tmp_path).arms == ("exact", "official", "paper")


def test_numbers_in_the_names_of_arms_are_in_order(tmp_path):
    for arm in ("gamma_0.1", "gamma_0.05", "gamma_1e-05", "gamma_1.0", "gamma_10"):
        write_run(tmp_path / arm, arm=arm)
    arms = ("gamma_1e-05", "gamma_0.05", "gamma_0.1", "gamma_1.0", "gamma_10")
    assert read_sweep(tmp_path).arms == arms


def test_some_arms_alone_can_be_compared(folder):
    sweep = read_sweep(folder)
    some = summarize_sweep(sweep, baseline=None, arms=["gamma_0.1"])
    assert some.arms == ("gamma_0.0", "gamma_0.1")
    # One comparison instead of two: nothing to adjust for.
    comparison = some.comparisons["gamma_0.1"]["accuracy_end"]
    assert comparison.q_value == comparison.difference.p_value
    with pytest.raises(ValueError, match=r"--arms.*'dapo'.*gamma_0\.0"):
        summarize_sweep(sweep, baseline=None, arms=["dapo"])


def write_sampled(folder, arm, accuracies, prompts_drawn, *, seed=1):
    write_run(
        folder / f"{arm}_{seed}", arm=arm, seed=seed, accuracies=accuracies,
        columns={"prompts_drawn": prompts_drawn}, settings={"rollout": {"num_responses": 8}},
    )  # fmt: skip


def test_equal_sampling_cost_counts_the_responses_that_the_cheapest_arm_drew(tmp_path):
    for seed in (1, 2):
        write_sampled(tmp_path, "grpo", [0.1, 0.2, 0.3], [16, 32, 48], seed=seed)
        write_sampled(tmp_path, "dapo", [0.2, 0.4, 0.9], [40, 60, 90], seed=seed)
    summary = summarize_sweep(read_sweep(tmp_path), baseline=None)
    grpo, dapo = (summary.sweep.of_arm(arm)[0].scores for arm in ("grpo", "dapo"))
    assert (grpo["responses_drawn"], dapo["responses_drawn"]) == (8 * 48, 8 * 90)
    # Response by response: of the first 48 prompts, DAPO's first rollout drew 40 and its second 8.
    responses = [0.2] * 40 * 8 + [0.4] * 8 * 8
    assert dapo["accuracy_curve_equal_cost"] == pytest.approx(statistics.fmean(responses))
    # The last tenth of 48 prompts are 4.8, all of its second rollout.
    assert dapo["accuracy_end_equal_cost"] == pytest.approx(0.4)
    assert grpo["accuracy_curve_equal_cost"] == pytest.approx(grpo["accuracy_curve"])
    difference = summary.comparisons["dapo"]["accuracy_curve_equal_cost"].difference
    assert difference.value == pytest.approx(statistics.fmean(responses) - 0.2)
    # A count is shown and not compared.
    assert "responses_drawn" not in summary.comparisons["dapo"]
    text = markdown_report(summary)
    assert "N = 384" in text
    assert "| dapo | 0 of 2 [0, 66] | 720 |" in text
    tags = Tags()
    tags.feed(html_report(summary))
    # Accuracy by rollout and by responses: an arm, the baseline beside it.
    assert tags.tags.count("polyline") == 4


def test_an_arm_that_drew_fewer_responses_ends_where_it_ends(tmp_path):
    for seed in (1, 2):
        write_sampled(tmp_path, "grpo", [0.1, 0.2, 0.3], [16, 32, 48], seed=seed)
        write_sampled(tmp_path, "papo", [0.1, 0.3, 0.4 + seed / 50], [16, 32, 48], seed=seed)
        write_sampled(tmp_path, "dapo", [0.2, 0.4, 0.9], [40, 60, 90], seed=seed)
    assert "N = 384" in html_report(summarize_sweep(read_sweep(tmp_path), baseline=None))


def test_arms_that_draw_alike_have_no_measure_at_equal_cost(tmp_path):
    for arm in ("grpo", "papo_g"):
        write_sampled(tmp_path, arm, [0.1, 0.2], [16, 32])
    summary = summarize_sweep(read_sweep(tmp_path), baseline=None)
    assert summary.measures == ("accuracy_curve", "accuracy_end")
    assert "responses_drawn" in summary.cost_and_stability


def test_equal_cost_is_that_of_the_arms_that_are_compared(tmp_path):
    for arm, drawn in (("grpo", [16, 32]), ("dapo", [30, 50]), ("papo_d", [40, 80])):
        write_sampled(tmp_path, arm, [0.0, 1.0], drawn)
    sweep = read_sweep(tmp_path)
    some = summarize_sweep(sweep, baseline="dapo", arms=["papo_d"])
    # 50 prompts, of which PAPO_D drew 40 in its first rollout.
    assert some.sweep.of_arm("papo_d")[0].scores["accuracy_curve_equal_cost"] == 0.2
    every = summarize_sweep(sweep, baseline="dapo")
    assert every.sweep.of_arm("papo_d")[0].scores["accuracy_curve_equal_cost"] == 0.0


def test_a_collapse_is_counted_in_every_table_with_its_interval(tmp_path):
    for seed in range(1, 9):
        collapses = seed <= 3
        write_run(
            tmp_path / f"grpo_{seed}", arm="grpo", seed=seed, accuracies=[*RISE, 0.8],
        )  # fmt: skip
        write_run(
            tmp_path / f"no_cure_{seed}", arm="no_cure", seed=seed,
            accuracies=[*RISE, 0.1 if collapses else 0.7],
            columns={
                "loss/perception_kl": [0.1, 9.0 if collapses else 0.3, *[0.2] * 18],
                "reward/error_format": [*[0.1] * 18, *[0.5 if collapses else 0.1] * 2],
            },
        )  # fmt: skip
    summary = summarize_sweep(read_sweep(tmp_path), baseline=None)
    # Wilson by hand: (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4 n^2)) / (1 + z^2 / n).
    z, p, n = 1.959964, 3 / 8, 8
    middle, reach = p + z * z / 2 / n, z * (p * (1 - p) / n + z * z / 4 / n / n) ** 0.5
    low, high = ((middle - reach) / (1 + z * z / n), (middle + reach) / (1 + z * z / n))
    row = next(
        row for row in csv_rows(summary) if (row["arm"], row["measure"]) == ("no_cure", "collapsed")
    )
    assert (row["mean"], row["num_seeds"]) == (p, 8)
    assert (row["low"], row["high"]) == (
        pytest.approx(low, abs=1e-6),
        pytest.approx(high, abs=1e-6),
    )
    cell = f"3 of 8 [{100 * low:.0f}, {100 * high:.0f}]"
    text = markdown_report(summary)
    assert f"| no_cure | 8 | {cell} |" in text
    assert f"| no_cure | {cell} |" in text
    assert cell in html_report(summary).replace("\u00a0", " ")
    scores = summary.scores["no_cure"]
    assert scores["perception_kl_max"].mean == pytest.approx((3 * 9.0 + 5 * 0.3) / 8)
    assert scores["perception_kl_end"].mean == pytest.approx(0.2)
    assert scores["format_errors_end"].mean == pytest.approx((3 * 0.5 + 5 * 0.1) / 8)
    write_report(summary, tmp_path / "report")
    with (tmp_path / "report" / "runs.csv").open(newline="") as file:
        collapsed = [row for row in csv.DictReader(file) if row["collapsed"] == "yes"]
    assert [(row["arm"], row["seed"]) for row in collapsed] == [("no_cure", s) for s in "123"]


def test_the_table_of_differences_is_fit_to_paste(summary):
    text = markdown_report(summary)
    baseline = next(line for line in text.splitlines() if line.startswith("| gamma_0.0, itself |"))
    assert baseline.startswith("| gamma_0.0, itself | ")
    comparison = summary.comparisons["gamma_0.1"]
    cells = []
    for measure in summary.measures:
        interval, star = comparison[measure].difference.interval, comparison[measure].q_value < 0.05
        ends = [f"{100 * x:+.1f}" for x in (interval.value, interval.low, interval.high)]
        cells.append(f"{ends[0]} [{ends[1]}, {ends[2]}]" + "*" * star)
    assert any(cell.endswith("*") for cell in cells)
    assert f"| gamma_0.1 | {' | '.join(cells)} |" in text
