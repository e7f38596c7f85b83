"""`python train.py` and its relatives, from the command line to the files it leaves."""

import csv
import json
import re
import shlex
import subprocess

import pytest
import torch
from command import REPOSITORY, SHORT, result, run_command
from PIL import Image

pytestmark = pytest.mark.slow


def table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def read_records(run):
    return [json.loads(line) for line in (run / "rollouts.jsonl").read_text().split("\n")[:-1]]


@pytest.fixture(scope="module")
def demo(tmp_path_factory, forked_python):
    """The default command, a few rollouts of it, as a user starts it."""
    run = tmp_path_factory.mktemp("demo") / "run"
    command = [forked_python, "train.py", *SHORT, "safeguard=act", "training.num_rollouts=4"]
    process = subprocess.run(
        [*command, "callbacks.rollout_table.every_rollouts=2", f"run_dir={run}"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=200,
    )
    assert process.returncode == 0, process.stderr
    return run, process


def test_the_demo_ends_with_a_table_and_says_where_everything_is(demo):
    run, process = demo
    assert process.stdout.count("memory: about ") == 1
    for text in ("training prior", "counter-prior", "before", "after", "perception", str(run)):
        assert text in process.stdout
    assert process.stdout.count("rollout ") >= 4
    assert process.stderr == ""
    # Of a sound run the safeguard says nothing.
    assert "safeguard" not in process.stdout
    assert not (run / "safeguard.jsonl").exists()


def test_the_demo_leaves_the_files_of_a_run(demo):
    run, _ = demo
    assert {path.name for path in run.iterdir()} >= {
        "run.json",
        "config.yaml",
        "metrics.csv",
        "timings.csv",
        "rollouts.jsonl",
        "checkpoints",
        "result.json",
    }
    rows = table(run / "metrics.csv")
    assert [row["rollout_step"] for row in rows] == ["1", "2", "3", "4"]
    assert all(float(row["loss/perception_kl"]) >= 0 for row in rows)
    timings = table(run / "timings.csv")
    assert timings[0].keys() == {"rollout_step", "rollout", "reward", "score", "update"}
    got = result(run)
    assert got["status"] == "finished"
    assert got["seed"] == 1
    assert got["metrics"]["rollout_step"] == 4
    assert set(got["evaluation"]) == {"before", "after"}


def test_the_rollout_table_shows_both_views_and_the_kl_of_each_token(demo):
    run, _ = demo
    records = read_records(run)
    assert [record["rollout_step"] for record in records] == [1] * 4 + [2] * 4 + [4] * 4
    for record in records:
        image, masked = (Image.open(run / record[key][0]) for key in ("images", "masked_images"))
        assert image.size == masked.size == (56, 56)
        assert image.tobytes() != masked.tobytes()
        assert len(record["perception_kl"]) == len(record["token_ids"])
        assert all(value >= -1e-6 for value in record["perception_kl"])
        assert 0 <= record["reward"] <= 1


def test_the_picture_in_the_table_is_the_picture_that_was_drawn(demo):
    from lab_module import lab_problems

    run, _ = demo
    record = read_records(run)[0]
    drawn = lab_problems(size=1_000_000)[int(record["problem"].rsplit("-", 1)[1])]
    saved = Image.open(run / record["images"][0])
    pairs = zip(saved.tobytes(), drawn.images[0].tobytes(), strict=True)
    assert max(abs(a - b) for a, b in pairs) <= 1


def test_an_exported_policy_is_the_trained_one(demo, tmp_path):
    from lab_module import lab_policy
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

    run, _ = demo
    from papo.commands.export import export

    export(run, tmp_path / "exported")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "exported")
    state = torch.load(run / "checkpoints" / "rollout_000004.ckpt", weights_only=True)["state_dict"]
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[f"policy_module.policy.model.{name}"])
    initial = lab_policy().model.state_dict()
    assert any(not torch.equal(value, initial[name]) for name, value in model.state_dict().items())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "exported")
    assert tokenizer.chat_template
    AutoImageProcessor.from_pretrained(tmp_path / "exported")
    card = (tmp_path / "exported" / "README.md").read_text("utf-8")
    assert "| counter-prior | after |" in card
    assert "Weights of rollout_000004" in card


def test_exporting_over_something_is_refused(demo, tmp_path):
    run, _ = demo
    (tmp_path / "mine.txt").write_text("keep")
    from papo.commands.export import export

    with pytest.raises(ValueError, match="not empty"):
        export(run, tmp_path)
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        export(tmp_path, tmp_path / "out")


def test_a_multirun_has_a_result_per_job_and_a_wandb_run_each(tmp_path):
    outcome = run_command(
        "seed=1,2",
        "logger=all",
        f"run_dir={tmp_path / 'sweep'}",
        "training.num_rollouts=1",
        multirun=True,
    )
    assert outcome.code == 0, outcome.stderr
    # One table for all, with a line for each.
    assert outcome.stdout.count("what it set") == 1
    assert "what became of it" not in outcome.stdout
    assert len([line for line in outcome.stdout.splitlines() if " finished " in line]) == 2
    # Before it a line for each, and none about its rollouts.
    ends = [line for line in outcome.stdout.splitlines() if "Everything is in" in line]
    assert len(ends) == 2
    assert not any(word in outcome.stdout for word in ("rollout 1/1", "run folder", "memory:"))
    jobs = sorted((tmp_path / "sweep").glob("*/result.json"))
    assert [job.parent.name for job in jobs] == ["0", "1"]
    overrides = [result(job.parent)["overrides"] for job in jobs]
    assert len({tuple(o) for o in overrides}) == 2
    assert {result(job.parent)["seed"] for job in jobs} == {1, 2}
    ids = set()
    for job in jobs:
        [log] = (job.parent / "wandb").glob("offline-run-*/run-*.wandb")
        ids.add(log.stem)
        assert list((job.parent / "tensorboard").glob("events.out.tfevents.*"))
    assert len(ids) == 2


def test_one_failing_job_does_not_stop_the_others(tmp_path):
    outcome = run_command(
        "rollout.num_responses=1,2",
        "training.num_rollouts=1",
        f"run_dir={tmp_path}",
        multirun=True,
    )
    assert outcome.code == 1
    assert outcome.stderr.count("error: ") == 1
    assert not (tmp_path / "0" / "result.json").exists()
    assert result(tmp_path / "1")["status"] == "finished"
    # The table has both.
    rows = [line.split() for line in outcome.stdout.splitlines() if line[:1] == "│"]
    assert [(row[1], row[5]) for row in rows] == [("0", "failed"), ("1", "finished")]


def test_jobs_of_a_multirun_say_how_far_they_are_when_asked(tmp_path):
    outcome = run_command(
        "seed=1,2", "callbacks.progress.every_rollouts=2", f"run_dir={tmp_path}", multirun=True
    )
    assert outcome.code == 0
    assert outcome.stdout.count("rollout 2/2") == 2
    assert outcome.stdout.count("rollout 1/2") == 0
    assert outcome.stdout.count("run folder: ") == 2


def test_a_resumed_run_keeps_its_wandb_id(tmp_path):
    from papo.training import finish_loggers, wandb_logger

    ids = []
    for folder in ("a", "b", "a"):
        logger = wandb_logger(
            run_dir=str(tmp_path / folder), project="papo", group=None, mode="offline"
        )
        ids.append(logger.experiment.id)
        finish_loggers([logger])
    assert ids[0] == ids[2] != ids[1]


def test_dynamic_sampling_trains_from_the_command_line(tmp_path):
    outcome = run_command(
        f"run_dir={tmp_path}", "objective=dapo", "training.max_resample=2", "optimizer.lr=0.001"
    )
    assert outcome.code == 0, outcome.stderr
    rows = table(tmp_path / "metrics.csv")
    assert int(rows[-1]["prompts_drawn"]) == 4 + sum(
        int(float(row["resample/groups_dropped"])) for row in rows
    )


def test_geometry3k_trains_with_a_tiny_model(geometry3k, tmp_path):
    outcome = run_command(
        "+experiment=papo_geo3k",
        "model=tiny_qwen2_5_vl",
        f"data.path={geometry3k}",
        "data.limit=8",
        "trainer=cpu",
        "optimizer.lr=0.001",
        "rollout.max_response_tokens=8",
        f"run_dir={tmp_path}",
    )
    assert outcome.code == 0, outcome.stderr
    assert "kept " in outcome.stdout
    rows = table(tmp_path / "metrics.csv")
    assert len(rows) == 2
    assert all(abs(float(row["loss/total"])) < 100 for row in rows)
    assert float(rows[-1]["update/grad_norm"]) > 0


def test_a_second_view_and_a_term_that_looks_at_it_are_settings(tmp_path):
    page = (REPOSITORY / "docs" / "fidelity.md").read_text()
    [command] = [line for line in page.splitlines() if "+objective.views" in line]
    outcome = run_command(*shlex.split(command)[2:], f"run_dir={tmp_path}")
    assert outcome.code == 0, outcome.stderr
    for row in table(tmp_path / "metrics.csv"):
        assert float(row["views/blank_changed"]) == 1
        assert 0 < float(row["masking/masked_fraction"]) < 1
        assert float(row["loss/blank_kl"]) > 0
        assert float(row["loss/blank_kl"]) != float(row["loss/perception_kl"])


def test_every_logged_name_is_documented(demo):
    run, _ = demo
    documented = (REPOSITORY / "docs" / "metrics.md").read_text()
    names = [
        re.sub("^gradient/[^/]+/", "gradient/TERM/", name) for name in table(run / "metrics.csv")[0]
    ]
    names += [f"seconds/{n}" for n in ("rollout", "reward", "score", "update")]
    missing = [name for name in names if f"`{name}`" not in documented]
    assert not missing
