"""A command on a folder that holds a run: finished, half-deleted, damaged, held by another, too short."""

import json
import shutil
from importlib.metadata import version

import pytest
import torch
from command import SHORT, contents, result, run_command
from omegaconf import OmegaConf

from papo.storage.files import locked

pytestmark = pytest.mark.slow

ROLLOUTS = 4
LONG = (
    f"training.num_rollouts={ROLLOUTS}",
    "callbacks.checkpoint.keep_last=3",
    "callbacks.rollout_table.every_rollouts=1",
)
TABLES = ("metrics.csv", "rollouts.jsonl")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    outcome = run_command(*LONG, "logger=tensorboard", f"run_dir={folder}")
    assert outcome.code == 0, outcome.stderr
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A finished run to spoil."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def killed(run):
    """The run as a kill after its last rollout leaves it, with three checkpoints."""
    (run / "result.json").unlink()
    return run


def continued(folder, *overrides):
    """What `python train.py run_dir=FOLDER resume=true` does."""
    return run_command(f"run_dir={folder}", "resume=true", *overrides, short=False)


def whole_command(folder, *overrides):
    return run_command(*LONG, f"run_dir={folder}", "resume=true", *overrides)


def checkpoint(folder, step):
    return folder / "checkpoints" / f"rollout_{step:06d}.ckpt"


def weights(folder, step=ROLLOUTS):
    return torch.load(checkpoint(folder, step), weights_only=True)["state_dict"]


def assert_same_run(got, expected, step=ROLLOUTS):
    for table in TABLES:
        assert (got / table).read_bytes() == (expected / table).read_bytes()
    found, wanted = weights(got, step), weights(expected, step)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert result(got)["metrics"] == result(expected)["metrics"]
    assert result(got)["evaluation"] == result(expected)["evaluation"]


def one_line(outcome):
    assert outcome.code == 1
    assert "Traceback" not in outcome.stderr
    [line] = outcome.stderr.splitlines()
    return line


def delete(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


HALVES = {
    "nothing": (),
    "all checkpoints": ("checkpoints",),
    "the newest checkpoints": (
        "checkpoints/rollout_000004.ckpt",
        "checkpoints/rollout_000003.ckpt",
    ),
    "the metrics": ("metrics.csv",),
    "the pictures": ("rollouts", "rollouts.jsonl"),
    "all but what it is and what came of it": (
        *("checkpoints", "metrics.csv", "timings.csv", "rollouts", "rollouts.jsonl"),
        *("config.yaml", ".lock"),
    ),
}


@pytest.mark.parametrize(
    ("command", "deleted"),
    [*((continued, deleted) for deleted in HALVES), (whole_command, "all checkpoints")],
)
def test_repeating_a_finished_run_changes_no_byte_whatever_was_deleted(run, deleted, command):
    for name in HALVES[deleted]:
        delete(run / name)
    before = contents(run)
    outcome = command(run)
    assert outcome.code == 0, outcome.stderr
    assert "4 rollouts, 4 updates" in outcome.stdout
    assert contents(run) == before


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    outcome = sweep_command(folder)
    assert outcome.code == 0, outcome.stderr
    return folder


def sweep_command(folder):
    """One job of a sweep of docs/sweeps.md, which continues what is there."""
    return run_command(
        *("+sweep=lab_gamma", "objective.gamma=0.1", "seed=3", f"hydra.sweep.dir={folder}"),
        multirun=True,
    )


@pytest.mark.parametrize(
    "deleted",
    [("checkpoints",), ("checkpoints/rollout_000002.ckpt", "metrics.csv")],
)
def test_repeating_a_sweep_changes_no_byte_of_a_finished_job(sweep, tmp_path, deleted):
    folder = shutil.copytree(sweep, tmp_path / "sweep")
    job = folder / "gamma_0.1" / "seed_3"
    for name in deleted:
        delete(job / name)
    before = contents(job)
    outcome = sweep_command(folder)
    assert outcome.code == 0, outcome.stderr
    assert "2 rollouts" in outcome.stdout
    assert contents(job) == before


def test_repeating_a_sweep_continues_a_killed_job_and_names_a_damaged_one(sweep, tmp_path):
    folder = shutil.copytree(sweep, tmp_path / "sweep")
    job, whole = (one / "gamma_0.1" / "seed_3" for one in (folder, sweep))
    (job / "result.json").unlink()
    damage(checkpoint(job, 2), "cut")
    assert sweep_command(folder).code == 0
    assert_same_run(job, whole, step=2)
    (job / "result.json").write_text("[")
    before = contents(job)
    outcome = sweep_command(folder)
    assert outcome.code == 1
    assert f"{job / 'result.json'} is damaged" in outcome.stderr
    (job / "failure.json").unlink()
    assert contents(job) == before


def test_a_second_process_is_refused_with_one_line(killed):
    before = contents(killed)
    with locked(killed):
        outcome = continued(killed)
    assert f"another process writes to {killed}" in one_line(outcome)
    assert contents(killed) == before


def test_rows_after_the_checkpoint_are_kept_beside_and_written_again(killed, finished):
    for step in (3, 4):
        checkpoint(killed, step).unlink()
    watched = {name for name in contents(finished) if name.startswith("tensorboard/")}
    outcome = continued(killed)
    assert outcome.code == 0, outcome.stderr
    assert_same_run(killed, finished)
    # The folder was moved, and what watches the run writes to where it is now.
    assert {name for name in contents(finished) if name.startswith("tensorboard/")} == watched
    assert len([name for name in contents(killed) if name.startswith("tensorboard/events")]) == 2
    for table, lines in {"metrics.csv": 2, "timings.csv": 2, "rollouts.jsonl": 8}.items():
        [kept] = killed.glob(f"{table}.cut-*")
        assert f"{lines} lines of {table} will be written again; as they were, in {kept}" in (
            outcome.stdout
        )
        whole = (finished / table).read_bytes().splitlines(keepends=True)
        header = whole[: 1 if table.endswith(".csv") else 0]
        assert kept.read_bytes() == b"".join([*header, *whole[-lines:]])


def test_a_run_without_checkpoints_begins_again_and_keeps_its_rows(killed, finished):
    shutil.rmtree(killed / "checkpoints")
    outcome = continued(killed)
    assert outcome.code == 0, outcome.stderr
    assert_same_run(killed, finished)
    [kept] = killed.glob("metrics.csv.cut-*")
    assert kept.read_bytes() == (finished / "metrics.csv").read_bytes()


def test_rows_that_are_lost_are_said(killed):
    lines = (killed / "metrics.csv").read_bytes().splitlines(keepends=True)
    (killed / "metrics.csv").write_bytes(b"".join([*lines[:2], *lines[3:]]))
    outcome = continued(killed)
    assert outcome.code == 0, outcome.stderr
    assert "metrics.csv has lost rows: rollout 2 of the 4" in outcome.stdout


def flip(content):
    """One bit of the largest tensor."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 3],
    "one bit flipped": flip,
    "no checkpoint": lambda content: b"<html>404</html>" * 100,
}


def damage(path, how):
    path.write_bytes(DAMAGES[how](path.read_bytes()))


@pytest.mark.parametrize("how", ["cut", "one bit flipped"])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(killed, finished, how):
    damage(checkpoint(killed, 4), how)
    broken = checkpoint(killed, 4).read_bytes()
    outcome = continued(killed)
    assert outcome.code == 0, outcome.stderr
    assert f"{checkpoint(killed, 4)} is damaged: " in outcome.stdout
    assert "goes on after rollout 3" in outcome.stdout
    assert (killed / "checkpoints" / "rollout_000004.ckpt.damaged").read_bytes() == broken
    assert_same_run(killed, finished)


def test_a_run_without_a_whole_checkpoint_stops_and_changes_nothing(killed):
    for step, how in ((2, "empty"), (3, "cut"), (4, "one bit flipped")):
        damage(checkpoint(killed, step), how)
    before = contents(killed)
    line = one_line(continued(killed))
    for step in (2, 3, 4):
        assert str(checkpoint(killed, step)) in line
    assert "begin the run again" in line
    assert contents(killed) == before


def test_settings_that_are_left_out_are_the_runs_own(killed, finished):
    checkpoint(killed, 4).unlink()
    outcome = continued(killed, "logger=csv", "callbacks.progress.every_rollouts=2")
    assert outcome.code == 0, outcome.stderr
    assert_same_run(killed, finished)
    assert len(list((killed / "tensorboard").glob("events.*"))) == 1


def test_a_setting_that_differs_is_refused_and_the_way_on_is_said(killed):
    before = contents(killed)
    line = one_line(whole_command(killed, "objective.gamma=0.2"))
    assert "objective.gamma was 0.3, is 0.2" in line
    assert f"With run_dir={killed} resume=true and no setting it continues with its own" in line
    line = one_line(continued(killed, "objective.gamma=0.2"))
    assert "evaluation.num_problems was 2, is 250" in line
    assert contents(killed) == before


def rewrite_config(run, change):
    config = OmegaConf.load(run / "config.yaml")
    change(config)
    OmegaConf.save(config, run / "config.yaml")


def test_a_folder_of_an_older_version_says_what_it_lacks(killed):
    rewrite_config(killed, lambda config: config.pop("evaluation"))
    line = one_line(continued(killed))
    assert "config.yaml" in line
    assert "lacks evaluation" in line


def test_a_run_from_elsewhere_constructs_nothing_but_this_projects_classes(killed):
    rewrite_config(killed, lambda config: config.masking.update(_target_="os.system"))
    before = contents(killed)
    assert "os.system" in one_line(continued(killed))
    assert contents(killed) == before


@pytest.fixture(scope="module")
def longer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("longer") / "run"
    outcome = run_command(*LONG[1:], "training.num_rollouts=6", f"run_dir={folder}")
    assert outcome.code == 0, outcome.stderr
    return folder


def test_a_finished_run_that_goes_on_is_the_longer_run(run, longer):
    first, started = result(run), json.loads((run / "run.json").read_text())
    outcome = continued(run, "training.num_rollouts=6")
    assert outcome.code == 0, outcome.stderr
    assert "training.num_rollouts was 4, is 6" in outcome.stdout
    assert_same_run(run, longer, step=6)
    assert json.loads((run / "result_000004.json").read_text()) == first
    assert json.loads((run / "config.json").read_text())["training"]["num_rollouts"] == 6
    assert "num_rollouts: 6" in (run / "config.yaml").read_text()
    now = json.loads((run / "run.json").read_text())
    *earlier, last = now.pop("starts")
    assert earlier == started.pop("starts")
    assert now == started
    assert last["overrides"] == [f"run_dir={run}", "resume=true", "training.num_rollouts=6"]
    assert last["versions"] == started["versions"]
    assert last["host"]
    before = contents(run)
    assert "6 rollouts, 6 updates" in continued(run).stdout
    assert contents(run) == before


def test_a_longer_run_that_is_killed_goes_on_to_its_new_end(run, longer, monkeypatch):
    from papo.commands.training import run as running

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(running, "fit", killed)
        with pytest.raises(KeyboardInterrupt):
            continued(run, "training.num_rollouts=6")
    assert result(run)["status"] == "interrupted"
    assert json.loads((run / "result_000004.json").read_text())["status"] == "finished"
    outcome = continued(run)
    assert outcome.code == 0, outcome.stderr
    assert_same_run(run, longer, step=6)


def test_a_run_is_not_made_shorter_than_it_is(run):
    before = contents(run)
    line = one_line(continued(run, "training.num_rollouts=3"))
    assert "has done 4 rollouts" in line
    assert "training.num_rollouts=3" in line
    assert contents(run) == before


def test_the_length_changes_only_where_the_command_says_so(run):
    before = contents(run)
    # Of the first command without its length: conf/ has another one.
    settings = (*SHORT[1:], *LONG[1:], f"run_dir={run}", "resume=true")
    line = one_line(run_command(*settings, short=False))
    assert "training.num_rollouts was 4, is 60" in line
    assert contents(run) == before


def test_a_finished_run_without_checkpoints_does_not_begin_again(run):
    shutil.rmtree(run / "checkpoints")
    before = contents(run)
    assert "has no checkpoint any more" in one_line(continued(run, "training.num_rollouts=6"))
    assert contents(run) == before


def test_a_schedule_over_the_run_is_not_stretched(run):
    def anneal(config):
        config.objective.gamma_anneal_until = 0.5
        config.objective.terms.perception_kl.anneal_until = 0.5

    rewrite_config(run, anneal)
    kept = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))
    (run / "config.json").write_text(json.dumps(kept))
    before = contents(run)
    line = one_line(continued(run, "training.num_rollouts=6"))
    assert "objective.gamma_anneal_until" in line
    assert "fades weights over the whole run" in line
    assert contents(run) == before


def test_another_commit_or_version_than_before_is_one_warning(killed):
    run = json.loads((killed / "run.json").read_text())
    # As it was written before the starts were kept.
    del run["starts"]
    run["git_commit"] = "0" * 40
    run["versions"]["torch"] = "1.0"
    (killed / "run.json").write_text(json.dumps(run))
    checkpoint(killed, 4).unlink()
    outcome = continued(killed)
    assert outcome.code == 0, outcome.stderr
    [warning] = [line for line in outcome.stdout.splitlines() if line.startswith("warning: ")]
    assert f"torch was 1.0, is {version('torch')}" in warning
    assert f"git_commit was {'0' * 40}, is " in warning
    starts = json.loads((killed / "run.json").read_text())["starts"]
    assert [start["versions"]["torch"] for start in starts] == ["1.0", version("torch")]


# More kinds of damage: test_files.py.
SPOILT = {
    "nested too deep": b"[" * 100_000,
    "no text": b"\xff\xfe\x00{",
    "without its values": b"{}",
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_damaged_configuration_is_named(run, how):
    (run / "config.yaml").write_bytes(SPOILT[how])
    before = contents(run)
    assert str(run / "config.yaml") in one_line(continued(run, "training.num_rollouts=5"))
    assert contents(run) == before


@pytest.mark.parametrize("name", ["config.json", "run.json", "result.json"])
@pytest.mark.parametrize("how", SPOILT)
def test_a_damaged_file_is_named_with_what_to_do(run, name, how):
    (run / name).write_bytes(SPOILT[how])
    before = contents(run)
    line = one_line(continued(run, "training.num_rollouts=5"))
    assert f"{run / name} is damaged: " in line
    assert "restore it" in line or "Delete it" in line
    assert contents(run) == before


@pytest.mark.parametrize(
    ("name", "how"), [("metrics.csv", "no text"), ("rollouts.jsonl", "nested too deep")]
)
def test_a_damaged_table_is_named_with_what_to_do(killed, name, how):
    with (killed / name).open("ab") as file:
        file.write(SPOILT[how] + b"\n")
    line = one_line(continued(killed))
    assert f"{killed / name} is damaged, line " in line
    assert "Move it away" in line
