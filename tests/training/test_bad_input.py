"""A mistake costs seconds, is explained in one message, and loses nothing."""

import json
import os
import shutil
import subprocess
from functools import wraps
from types import SimpleNamespace

import pytest
import torch
from command import contents, result, run_command
from PIL import Image

pytestmark = pytest.mark.slow


@pytest.fixture
def no_model(monkeypatch):
    """Fails where a model would be loaded."""
    import papo.models

    @wraps(papo.models.load_policy)
    def load(**_):
        raise AssertionError("a model was loaded before the settings were checked")

    monkeypatch.setattr(papo.models, "load_policy", load)


IMPOSSIBLE = {
    "rollout.num_responses=1": "rollout.num_responses",
    "objective.gamma=-0.1": "objective.gamma",
    "objective.beta=-1.0": "objective.beta",
    "objective.terms=null": "at least one term with a weight; got none. Set objective.terms.",
    "objective.terms.perception_kl.weight=-1": "objective.terms.perception_kl.weight is a weight",
    "objective.terms.perception_kl.view=blank": "got masked. Set objective.views.blank.",
    "objective.terms.surrogate.importance_cap=2.0": "Set rollout=server",
    "+objective.terms.mine=1": "objective.terms.mine is built as a papo.objective.term.Term by its _target_; got 1",
    "+objective.terms.mine={_target_: papo.masking.BlankMask}": "objective.terms.mine is built as a",
    "+objective.terms.total={_target_: papo.objective.ViewEntropy, weight: 1, estimator: sampled}": "got a term of that name",
    "+objective.views.mine={_target_: papo.masking.BlankMask}": "objective.views.mine is built as a",
    "+objective.views.image={_target_: papo.views.ImageView}": "got objective.views.image",
    "training.prompts_per_microbatch=3": "training.prompts_per_microbatch",
    "training.prompts_per_microbatch=null": "training.tokens_per_microbatch",
    "training.tokens_per_microbatch=1000": "training.prompts_per_microbatch",
    "training.tokens_per_microbatch=0": "training.tokens_per_microbatch",
    "training.prompts_per_minibatch=4": "training.prompts_per_minibatch",
    "training.prompts_per_rollout=0": "training.prompts_per_rollout",
    "training.num_rollouts=0": "training.num_rollouts",
    "training.num_rollouts=many": "training.num_rollouts",
    "training.num_rollouts=1.5": "training.num_rollouts",
    "training.max_grad_norm=0": "training.max_grad_norm",
    "training.max_resample=-1": "training.max_resample",
    "training.keep_accuracy_above=0.99": "training.keep_accuracy_above",
    "training.advantage_epsilon=0": "training.advantage_epsilon",
    "training.advantage_epsilon=inf": "training.advantage_epsilon",
    "rollout.temperature=inf": "rollout.temperature",
    "optimizer.betas=[nan,0.9]": "optimizer.betas",
    "num_threads=0": "num_threads",
    "seed=-1": "seed",
    "seed=one": "seed",
    "+traning.num_rollouts=1": "unknown key traning",
    "+training.rollouts=1": "unknown key training.rollouts",
    "+objective.gama=1": "unknown key: ",
    "optimizer._target_=torch.optim.SGD": "unknown key: optimizer.betas",
    "optimizer.lr=1e-3a": "optimizer.lr is a number",
    "optimizer.lr=nan": "optimizer.lr",
    "optimizer.lr=inf": "optimizer.lr",
    "optimizer.lr=-1": "optimizer.lr=-1",
    "optimizer.betas=[0.9,1.5]": "optimizer.betas=[0.9, 1.5]",
    "trainer.precision=half": "trainer.precision=half",
    "trainer.accelerator=quantum": "got 'quantum'. Set trainer.accelerator.",
    "+trainer.accumulate_grad_batches=2": "set training.prompts_per_microbatch",
    "+trainer.max_epochs=3": "set training.num_rollouts",
    "+trainer.gradient_clip_val=1": "set training.max_grad_norm",
    "+trainer.strategy=ddp": "trainer.strategy",
    "callbacks.checkpoint.every_rollouts=often": "callbacks.checkpoint.every_rollouts is a whole",
    "+callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping": "callbacks.stop.monitor",
    "+model.size=3": "unknown key: model.size",
    "model.head_chunk_size=many": "model.head_chunk_size is a whole number",
    "optimizer._target_=os.system": "_target_: os.system",
    "masking._target_=torch.load": "_target_: torch.load",
    "model.path=no/such/folder": "model.path",
    "masking.ratio=2.0": "masking.ratio",
    "rollout.top_p=0.0": "rollout.top_p",
    "callbacks.checkpoint.keep_last=0": "callbacks.checkpoint.keep_last",
    "trainer.devices=0": "trainer.devices",
    "data.size=1": "training.prompts_per_rollout",
    "data=local": "data.path=FOLDER",
}


@pytest.mark.parametrize("override", IMPOSSIBLE)
def test_an_impossible_setting_is_named_before_a_model_is_loaded(override, tmp_path, no_model):
    outcome = run_command(override, f"run_dir={tmp_path / 'run'}")
    assert outcome.code == 1
    assert IMPOSSIBLE[override] in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_all_wrong_keys_of_a_section_are_said_at_once_and_the_rule_between_keys_when_each_is_right():
    from papo.training import training_settings

    fine = {
        **{"num_rollouts": 3, "prompts_per_rollout": 4, "prompts_per_minibatch": 2},
        **{"prompts_per_microbatch": 1, "tokens_per_microbatch": None, "max_grad_norm": 1},
        **{"advantage_epsilon": 1e-6, "max_resample": 0},
        **{"keep_accuracy_above": 0.01, "keep_accuracy_below": 0.99},
    }
    assert isinstance(training_settings(fine).max_grad_norm, float)
    wrong = {**fine, "num_rollouts": True, "max_grad_norm": "1", "rollouts": 2}
    del wrong["max_resample"]
    with pytest.raises(ValueError) as refusal:
        training_settings({**wrong, "prompts_per_minibatch": 3})
    said = str(refusal.value)
    assert "training.num_rollouts is a whole number of at least 1; got True" in said
    assert "got '1'. Set training.max_grad_norm (published: 1.0" in said
    assert "unknown key training.rollouts; known: advantage_epsilon, " in said
    assert "training.max_resample is not set; set it in conf/train.yaml" in said
    assert "divides" not in said
    with pytest.raises(ValueError, match=r"^prompts per rollout .* got 3 and 4\. Set training"):
        training_settings({**fine, "prompts_per_minibatch": 3})


def test_a_refused_command_takes_back_the_folders_it_made_and_no_other(tmp_path):
    (tmp_path / "own").mkdir()
    for folder in (tmp_path / "own", tmp_path / "new" / "run"):
        assert run_command("+sweep=lab_gamma", f"run_dir={folder}").code == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["own"]


def test_a_gpu_that_is_not_here_is_said_in_one_line(tmp_path, no_model, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    outcome = run_command("trainer=gpu", f"run_dir={tmp_path / 'run'}")
    assert outcome.code == 1
    [line] = outcome.stderr.splitlines()
    assert "no GPU here" in line
    assert "trainer=cpu" in line
    assert "trainer=auto" in line
    assert not (tmp_path / "run" / "run.json").exists()


def test_wandb_online_without_a_key_is_told_before_anything_is_begun(
    tmp_path, no_model, monkeypatch
):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    run = tmp_path / "run"
    outcome = run_command("logger=wandb", "logger.wandb.mode=online", f"run_dir={run}")
    assert outcome.code == 1
    line = outcome.stderr.splitlines()[-1]
    assert "logger.wandb.mode=online" in line
    assert "WANDB_API_KEY" in line
    assert "Traceback" not in outcome.stderr
    assert not (run / "run.json").exists()


def test_a_fault_of_papo_itself_keeps_its_traceback(tmp_path, monkeypatch):
    from papo.training import checkpoints

    def broken(self, *, every_rollouts, keep_last):
        raise TypeError("a fault of the code, not of the command")

    monkeypatch.setattr(checkpoints.RolloutCheckpoint, "__init__", broken)
    outcome = run_command(f"run_dir={tmp_path / 'run'}")
    assert outcome.code == 1
    assert "error: " not in outcome.stderr
    assert "TypeError: a fault of the code" in outcome.stderr


def test_weights_that_small_updates_would_not_move_are_refused(tmp_path):
    outcome = run_command("trainer.precision=bf16-true", "optimizer.lr=1e-6", f"run_dir={tmp_path}")
    assert outcome.code == 1
    [line] = outcome.stderr.splitlines()
    assert "% of the trained weights in bfloat16" in line
    assert "trainer.precision=bf16-mixed" in line
    assert not (tmp_path / "metrics.csv").exists()


@pytest.mark.parametrize("masking", ["evidence", "control"])
def test_evidence_that_the_data_do_not_tell_of_is_refused_before_a_model_is_loaded(
    masking, tmp_path, no_model
):
    Image.new("RGB", (60, 40)).save(tmp_path / "1.png")
    row = {"id": "first", "problem": "<image>How many?", "answer": "2", "images": ["1.png"]}
    (tmp_path / "train.jsonl").write_text(json.dumps(row))
    outcome = run_command(
        *("model=tiny_qwen2_5_vl", "reward=math", "data=local", f"data.path={tmp_path}"),
        *(f"masking={masking}", f"run_dir={tmp_path / 'run'}"),
    )
    assert outcome.code == 1
    assert "problem 'first' of 'local' has 1 pictures and 0 boxes" in outcome.stderr
    assert "Choose masking=random" in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("objective.gate=correct", "objective.gate=correct"),
        ("objective.terms.perception_kl.gate=correct", "objective.gate=correct"),
        ("training.max_resample=2", "training.max_resample=2"),
    ],
)
def test_answers_that_nobody_knows_do_not_steer_the_training(override, key, tmp_path, no_model):
    outcome = run_command("reward=lab_partly_labelled", override, f"run_dir={tmp_path / 'run'}")
    assert outcome.code == 1
    assert key in outcome.stderr
    assert "reward.labelled_share" in outcome.stderr


def test_a_misspelt_key_is_refused_by_name():
    outcome = run_command("objective.gama=1")
    assert outcome.code == 1
    assert "objective.gama" in outcome.stderr


def test_a_published_run_without_hub_stops_and_names_the_override(tmp_path):
    outcome = run_command(
        "+experiment=papo_geo3k", "trainer=cpu", f"run_dir={tmp_path / 'run'}", short=False
    )
    assert outcome.code == 1
    assert "data.path=" in outcome.stderr or "model.path=" in outcome.stderr
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize("multirun", [False, True])
def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, multirun):
    (tmp_path / "file").write_text("")
    outcome = run_command(f"run_dir={tmp_path / 'file' / 'run'}", multirun=multirun)
    assert outcome.code == 1
    assert outcome.stderr == (
        f"error: {tmp_path / 'file' / 'run'} cannot be made: {tmp_path / 'file'} is no folder. Set run_dir=\n"
    )


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path, monkeypatch):
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path and access(path, mode))
    outcome = run_command(f"run_dir={tmp_path / 'run'}")
    assert outcome.code == 1
    assert f"{tmp_path} cannot be written to. Set run_dir=" in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


def test_a_run_folder_on_a_full_disk_or_read_only_is_one_line(tmp_path, no_model, monkeypatch):
    from pathlib import Path

    touch = Path.open

    def read_only(self, mode="r", *arguments, **keywords):
        if self.name == ".lock":
            raise OSError(30, "Read-only file system", str(self))
        return touch(self, mode, *arguments, **keywords)

    monkeypatch.setattr(Path, "open", read_only)
    outcome = run_command(f"run_dir={tmp_path}")
    assert outcome.code == 1
    assert outcome.stderr == f"error: [Errno 30] Read-only file system: '{tmp_path / '.lock'}'\n"


def test_the_whole_traceback_is_there_for_those_who_ask(tmp_path, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    outcome = run_command("rollout.num_responses=1", f"run_dir={tmp_path / 'run'}")
    assert outcome.code == 1
    assert "Traceback (most recent call last)" in outcome.stderr
    *_, message = outcome.stderr.splitlines()
    assert message.startswith("error: ")
    assert "rollout.num_responses" in message


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    outcome = run_command(f"run_dir={folder}")
    assert outcome.code == 0, outcome.stderr
    return folder


def test_a_folder_that_holds_a_run_is_left_alone(finished_run):
    before = contents(finished_run)
    outcome = run_command(f"run_dir={finished_run}")
    assert outcome.code == 1
    assert "already holds a run" in outcome.stderr
    assert "resume=true" in outcome.stderr
    assert contents(finished_run) == before


def test_resuming_with_another_setting_is_refused_and_names_it(finished_run):
    before = contents(finished_run)
    outcome = run_command(f"run_dir={finished_run}", "resume=true", "objective.gamma=0.2")
    assert outcome.code == 1
    assert "objective.gamma was 0.3, is 0.2" in outcome.stderr
    assert contents(finished_run) == before


def test_resuming_a_finished_run_changes_nothing(finished_run):
    before = contents(finished_run)
    outcome = run_command(f"run_dir={finished_run}", "resume=true")
    assert outcome.code == 0
    assert str(finished_run) in outcome.stdout
    assert contents(finished_run) == before


def test_a_folder_with_tables_of_unknown_origin_is_refused(tmp_path):
    (tmp_path / "metrics.csv").write_text("a,b\n1,2\n")
    outcome = run_command(f"run_dir={tmp_path}")
    assert outcome.code == 1
    assert "run.json" in outcome.stderr
    assert (tmp_path / "metrics.csv").read_text() == "a,b\n1,2\n"


def test_a_non_finite_loss_stops_naming_the_term_and_writes_the_batch(tmp_path):
    outcome = run_command(f"run_dir={tmp_path}", "optimizer.lr=1e30", "training.num_rollouts=3")
    assert outcome.code == 1
    assert "is not finite in rollout 2" in outcome.stderr
    batch = torch.load(tmp_path / "non_finite" / "rollout_000002.pt", weights_only=True)
    [(quantity, value)] = batch["broken"].items()
    assert quantity in outcome.stderr
    assert not torch.isfinite(torch.tensor(value))
    assert batch["batch"]["response_ids"].shape == batch["scores"]["image"]["logprobs"].shape
    assert len(batch["prompts"]) == 1
    assert result(tmp_path)["status"] == "failed"
    assert json.loads((tmp_path / "run.json").read_text())["seed"] == 1
    assert quantity in result(tmp_path)["error"]
    torch.load(tmp_path / "checkpoints" / "rollout_000001.ckpt", weights_only=True)


@pytest.fixture
def small_disk(tmp_path):
    """A file system with room for two checkpoints and the unfinished half of a third."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=11m", "tmpfs", str(disk)]
    if os.name != "posix" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_leaves_the_checkpoints_it_found(small_disk, monkeypatch):
    # There was room when the run began, and something else took it.
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**40))
    run = small_disk / "run"
    command = (f"run_dir={run}", "training.num_rollouts=4")
    outcome = run_command(*command)
    assert outcome.code == 1
    assert "No space left" in outcome.stderr
    assert "resume=true" in outcome.stderr
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names == ["rollout_000001.ckpt", "rollout_000002.ckpt"]
    for name in names:
        torch.load(run / "checkpoints" / name, weights_only=True)

    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert run_command(*command, "resume=true").code == 0
    rows = (run / "metrics.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == [1, 2, 3, 4]


def test_a_disk_that_fills_up_in_the_middle_of_a_write_is_reported(tmp_path, monkeypatch):
    from papo.training.checkpoints import AtomicCheckpointIO
    from papo.training.failures import CheckpointNotWritten

    io, path = AtomicCheckpointIO(), tmp_path / "rollout_000001.ckpt"
    io.save_checkpoint({"weights": torch.ones(3)}, path)
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for name in ("rollout_000001.ckpt", "rollout_000002.ckpt"):
        with pytest.raises(CheckpointNotWritten, match="No space left"):
            io.save_checkpoint({"weights": torch.zeros(3)}, tmp_path / name)
    assert contents(tmp_path) == {"rollout_000001.ckpt": before}
