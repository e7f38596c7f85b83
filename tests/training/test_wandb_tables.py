"""What a run leaves in W&B's offline files, and the same curves under other trainers' names."""

import csv
import json
import time
from pathlib import Path

import pytest
from command import REPOSITORY, run_command
from PIL import Image
from wandb_file import (
    exit_code,
    history,
    read_finished,
    read_records,
    run_record,
    staged_tables,
)

from papo.reporting.tokens import heat_map
from papo.training.aliases import aliased, choose_aliases, parse_formula
from papo.training.callbacks.wandb_rollouts import error_of

pytestmark = pytest.mark.slow


def wandb_folder(run):
    [folder] = (run / "wandb").glob("offline-run-*")
    return folder


def wandb_records(run):
    [file] = wandb_folder(run).glob("run-*.wandb")
    return read_finished(file)


def records_of(run):
    return [json.loads(line) for line in (run / "rollouts.jsonl").read_text().split("\n")[:-1]]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two rollouts of the default command with every logger and every name it can log."""
    folder = tmp_path_factory.mktemp("wandb") / "run"
    patch = pytest.MonkeyPatch()
    # Where the files of a table wait for upload: the home directory otherwise.
    patch.setenv("WANDB_DATA_DIR", str(folder.parent / "staged"))
    outcome = run_command(
        "logger=all",
        "logger.wandb.aliases=[official,trl]",
        "callbacks.rollout_table.every_rollouts=2",
        "callbacks.rollout_table.num_prompts=2",
        f"run_dir={folder}",
    )
    patch.undo()
    assert outcome.code == 0, outcome.stderr
    return folder


def rows_of_rollouts(records):
    """Without those of the evaluations before and after training, which have no update."""
    return [row for row in history(records) if "update_step" in row]


@pytest.fixture(scope="module")
def rows(run):
    return rows_of_rollouts(wandb_records(run))


@pytest.fixture(scope="module")
def metrics(run):
    """metrics.csv and timings.csv, a dict per rollout."""

    def table(name):
        read = csv.DictReader((run / name).read_text().splitlines())
        # A number that was not measured is no number for a tracker.
        return [{key: float(value) for key, value in row.items() if value != "nan"} for row in read]

    timings = [
        {f"seconds/{name}": value for name, value in row.items() if name != "rollout_step"}
        for row in table("timings.csv")
    ]
    return [{**a, **b} for a, b in zip(table("metrics.csv"), timings, strict=True)]


def test_a_row_per_rollout_whose_step_counts_rollouts(rows):
    assert [row["rollout_step"] for row in rows] == [1, 2]
    assert [row["step"] for row in rows] == [1, 2]


def test_the_evaluations_before_and_after_training_stand_at_their_rollouts(run):
    found = [row for row in history(wandb_records(run)) if "validation/accuracy" in row]
    assert [row["rollout_step"] for row in found] == [0, 2]
    lines = (run / "evaluations.jsonl").read_text().splitlines()
    for row, record in zip(found, map(json.loads, lines), strict=True):
        assert {name: row[name] for name in record["metrics"]} == record["metrics"]


def test_every_number_of_the_tables_is_logged_as_it_is(rows, metrics):
    for row, expected in zip(rows, metrics, strict=True):
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-12)


def test_aliases_carry_the_values_of_their_originals(rows, metrics):
    for row, own in zip(rows, metrics, strict=True):
        seconds = sum(own[f"seconds/{p}"] for p in ("rollout", "reward", "score", "update"))
        expected = {
            "actor/kl_prcp_loss": -own["loss/perception_kl"],
            "actor/pg_loss": own["loss/total"],
            "actor/pg_clipfrac_higher": own["policy/clip_fraction_low"]
            + own["policy/clip_fraction_high"],
            "critic/score/mean": own["reward/mean"],
            "response_length/clip_ratio": 1 - own["response/finished"],
            "perf/time_per_step": seconds,
            "train/reward": own["reward/mean"],
            "train/reward_std": own["reward/std_all"],
            "train/kl": own["loss/kl_ref"],
            "train/completions/mean_length": own["response/tokens_mean"],
            "train/global_step": own["update_step"],
        }
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-12)


def test_tensorboard_has_the_same_names(run, metrics):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) >= set(metrics[0])


def test_the_table_of_rollouts_holds_pictures_heat_maps_and_errors(run, rows):
    tables = staged_tables(wandb_records(run))
    assert len(tables) == len(rows) == 2
    num_tokens = iter(len(record["token_ids"]) for record in records_of(run))
    for row, staged in zip(rows, tables, strict=True):
        table = json.loads(Path(staged["rollouts.table.json"]).read_text(encoding="utf-8"))
        assert len(table["data"]) == row["rollouts"]["nrows"] == 4
        for values in table["data"]:
            shown = dict(zip(table["columns"], values, strict=True))
            assert shown["rollout_step"] == row["rollout_step"]
            assert shown["error"] in ("", "perception", "reasoning", "calculation", "inconsistent")
            for name in ("image", "masked_image"):
                with Image.open(staged[shown[name]["path"]]) as picture:
                    assert picture.size == (56, 56)
            page = Path(staged[shown["heat_map"]["path"]]).read_text(encoding="utf-8")
            assert page.count(" title=") == next(num_tokens)


def test_the_galleries_show_each_picture_once_and_each_response(run, rows):
    files = wandb_folder(run) / "files"
    for row in rows:
        assert row["rollout_image"]["count"] == 2
        assert row["rollout_masked_image"]["count"] == 2
        assert row["rollout_heat_map"]["count"] == 4
    pages = list((files / "media" / "html").rglob("rollout_heat_map*.html"))
    assert len(pages) == 8
    assert all("nats" in page.read_text() and "http" not in page.read_text() for page in pages)


def test_a_row_of_the_table_file_says_the_tokens_and_the_components(run):
    for record in records_of(run):
        assert len(record["tokens"]) == len(record["perception_kl"]) == len(record["token_ids"])
        text = "".join(record["tokens"]).removesuffix("<|im_end|>").strip()
        assert text == record["response"].strip()
        assert record["components"]["accuracy"] == float(record["correct"])


def test_a_finished_run_is_finished_and_belongs_to_no_group(run):
    records = wandb_records(run)
    assert exit_code(records) == 0
    assert run_record(records).run_group == ""
    assert run_record(records).job_type == "train"


def test_the_jobs_of_a_multirun_are_separate_runs_of_one_group(tmp_path):
    outcome = run_command(
        "logger=wandb",
        "seed=1,2",
        "training.num_rollouts=1",
        "callbacks.rollout_table.every_rollouts=0",
        f"run_dir={tmp_path / 'sweep'}",
        multirun=True,
    )
    assert outcome.code == 0, outcome.stderr
    runs = [wandb_records(tmp_path / "sweep" / job) for job in ("0", "1")]
    # Without a table too, the first rollout is step 1.
    assert [[row["step"] for row in rows_of_rollouts(run)] for run in runs] == [[1], [1]]
    started = [run_record(run) for run in runs]
    assert [one.run_group for one in started] == ["sweep", "sweep"]
    assert [one.display_name for one in started] == ["sweep/0", "sweep/1"]
    assert started[0].run_id != started[1].run_id


def test_a_failed_run_is_closed_as_failed_and_keeps_what_it_logged(tmp_path, monkeypatch):
    from papo.training import TrainingModule

    whole_step = TrainingModule.training_step

    def breaks_in_the_second(self, *arguments):
        if self.rollout_step == 1:
            raise ValueError("broken on purpose")
        whole_step(self, *arguments)

    monkeypatch.setattr(TrainingModule, "training_step", breaks_in_the_second)
    outcome = run_command("logger=wandb", f"run_dir={tmp_path / 'run'}")
    assert outcome.code == 1
    assert "broken on purpose" in outcome.stderr
    records = wandb_records(tmp_path / "run")
    assert exit_code(records) == 1
    [row] = rows_of_rollouts(records)
    assert row["rollouts"]["nrows"] == 4


HOSTILE = '</div><script>alert(1)</script><img src=x onerror="alert(1)"> & \' "'


def test_text_in_a_heat_map_is_inert():
    page = heat_map([HOSTILE, "b"], [0.5, 2.0])
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page


def test_a_heat_map_has_the_steps_of_the_pages_and_their_key():
    page = heat_map(list("abcdef"), [-1e-7, 0.25, 1.0, 3.0, float("inf"), float("nan")])
    levels = [part[0] for part in page.split('<span class="k')[1:]]
    assert levels == [*"033450", *"012345"], "six tokens, and the six steps of the key"
    assert 'title="0.25 nats"' in page


@pytest.mark.parametrize(
    ("components", "correct", "error"),
    [
        ({"accuracy": 0.0, "error_perception": 1.0, "error_format": 0.0}, False, "perception"),
        ({"accuracy": 1.0, "error_perception": 0.0}, True, ""),
        ({"accuracy": 0.0, "format": 1.0}, False, "wrong"),
    ],
)
def test_the_error_of_a_response_has_the_name_its_reward_gives_it(components, correct, error):
    assert error_of({"components": components, "correct": correct}) == error


def alias_tables():
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from papo.commands import front_door

    with initialize_config_dir(config_dir=front_door.CONFIG_FOLDER, version_base="1.3"):
        config = compose("train", overrides=["logger=wandb"])
    return OmegaConf.to_container(config.logger.wandb.alias_tables)


def test_every_alias_is_made_of_documented_metrics_and_hides_none():
    documented = (REPOSITORY / "docs" / "metrics.md").read_text()
    explained = (REPOSITORY / "docs" / "dashboard.md").read_text()
    tables = alias_tables()
    assert set(tables) == {"easyr1", "official", "trl"}
    for table in tables.values():
        for alias, text in table.items():
            assert f"`{alias}`" not in documented
            assert f"`{alias}`" in explained
            for _, name in parse_formula(text):
                assert name == "1" or f"`{name}`" in documented, name


def test_formulas_are_sums_with_signs():
    assert parse_formula("reward/mean") == ((1, "reward/mean"),)
    assert parse_formula("-loss/perception_kl") == ((-1, "loss/perception_kl"),)
    assert parse_formula("1 - a/b + c") == ((1, "1"), (-1, "a/b"), (1, "c"))


@pytest.mark.parametrize("text", ["", "a b", "2 * a", "a +", "a - - b", "1a", "__import__('os')"])
def test_what_is_no_sum_is_refused(text):
    with pytest.raises(ValueError, match="alias"):
        parse_formula(text)


def test_an_alias_without_its_metrics_is_absent():
    formulas = choose_aliases({"t": {"x": "a - b", "y": "1 - a"}}, ["t"])
    assert aliased(formulas, {"a": 0.25}) == {"y": 0.75}
    assert aliased(formulas, {"a": 0.25, "b": 1.0}) == {"x": -0.75, "y": 0.75}


def test_one_name_with_two_meanings_is_refused():
    with pytest.raises(ValueError, match=r"actor/pg_loss.*logger\.wandb\.aliases"):
        choose_aliases(alias_tables(), ["easyr1", "official"])
    with pytest.raises(ValueError, match="there are alias tables easyr1, official, trl"):
        choose_aliases(alias_tables(), ["verl"])


def test_a_row_is_on_disk_before_the_next_rollout_ends(tmp_path):
    """A killed run leaves no other: W&B keeps rows for 15 seconds where it is not told otherwise."""
    from papo.training import finish_loggers, wandb_logger

    logger = wandb_logger(run_dir=str(tmp_path), project="papo", group=None, mode="offline")
    logger.log_metrics({"rollout_step": 1, "reward/mean": 0.5}, step=1)
    [file] = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 8
    while not (rows := history(read_records(file))) and time.monotonic() < deadline:
        time.sleep(0.1)
    finish_loggers([logger])
    assert [row["reward/mean"] for row in rows] == [0.5]


def test_what_other_callbacks_log_joins_the_row_of_the_next_rollout(tmp_path):
    from papo.training import finish_loggers, wandb_logger

    logger = wandb_logger(run_dir=str(tmp_path), project="papo", group=None, mode="offline")
    for step in (1, 2):
        # As LearningRateMonitor does, with the number of the rollouts before.
        logger.log_metrics({"lr-AdamW": 0.1 * step}, step=step - 1)
        logger.log_metrics({"rollout_step": step, "reward/mean": 0.5}, step=step)
    finish_loggers([logger])
    [file] = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    rows = history(read_finished(file))
    assert [(row["step"], row["lr-AdamW"]) for row in rows] == [(1, 0.1), (2, 0.2)]
