"""Callbacks of Lightning from the command line: they see the metrics, and change none of the run's."""

import json
import signal

import pytest
import torch
from command import result, run_command, sent_on_call
from omegaconf import OmegaConf

SETTINGS = ("training.num_rollouts=5", "callbacks.checkpoint.every_rollouts=2")
CALLBACKS = (
    "+callbacks.best._target_=lightning.pytorch.callbacks.ModelCheckpoint",
    *("+callbacks.best.monitor=reward/mean", "+callbacks.best.mode=max"),
    *("+callbacks.best.save_top_k=2", "+callbacks.best.filename='best_{rollout_step:.0f}'"),
    "+callbacks.best.auto_insert_metric_name=false",
    "+callbacks.rate._target_=lightning.pytorch.callbacks.LearningRateMonitor",
)
# A reward never exceeds 9, so the third rollout is the second without improvement.
STOP = (
    "+callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping",
    *("+callbacks.stop.monitor=reward/mean", "+callbacks.stop.mode=max"),
    *("+callbacks.stop.min_delta=9", "+callbacks.stop.patience=2"),
)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    run = tmp_path_factory.mktemp("plain")
    outcome = run_command(*SETTINGS, f"run_dir={run}")
    assert outcome.code == 0, outcome.stderr
    return run


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    run = tmp_path_factory.mktemp("watched")
    outcome = run_command(*SETTINGS, *CALLBACKS, "logger=tensorboard", f"run_dir={run}")
    assert outcome.code == 0, outcome.stderr
    assert outcome.stderr == ""
    return run


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    run = tmp_path_factory.mktemp("stopped")
    outcome = run_command(*SETTINGS, *STOP, f"run_dir={run}")
    assert outcome.code == 0, outcome.stderr
    return run, outcome


def rewards(run):
    header, *rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    return {int(row[0]): float(row[header.index("reward/mean")]) for row in rows}


def test_metrics_are_to_the_byte_those_of_a_run_without_them(plain, watched):
    assert (watched / "metrics.csv").read_bytes() == (plain / "metrics.csv").read_bytes()


def test_the_best_checkpoints_are_those_of_the_highest_rewards(watched):
    kept = {int(file.stem.rpartition("_")[2]) for file in (watched / "checkpoints").glob("best_*")}
    by_reward = rewards(watched)
    lowest_kept = min(by_reward[step] for step in kept)
    assert len(kept) == 2
    assert all(by_reward[step] <= lowest_kept for step in set(by_reward) - kept)


def test_a_best_checkpoint_can_be_evaluated_and_holds_the_state_to_resume_from(watched):
    from papo.commands.policy_source import find_policy, load_policy

    [file, *_] = (watched / "checkpoints").glob("best_*")
    source = find_policy(str(file), OmegaConf.load(watched / "config.yaml").model)
    state = torch.load(file, weights_only=True)
    assert state["papo"]["rollout_step"] == int(file.stem.rpartition("_")[2])
    trained = dict(load_policy(source).model.named_parameters())
    for name, weight in trained.items():
        assert torch.equal(weight, state["state_dict"][f"policy_module.policy.model.{name}"])


def test_they_are_no_checkpoints_of_the_run(watched):
    from papo.training import newest_checkpoint

    assert newest_checkpoint(watched / "checkpoints").name == "rollout_000005.ckpt"


def test_lightning_counts_rollouts_and_updates_on_after_a_resume(plain, tmp_path, monkeypatch):
    from papo.training import collect

    best = (
        *(*CALLBACKS[:3], "+callbacks.best.save_top_k=-1"),
        "+callbacks.best.filename='best_{epoch}_{step}'",
        "+callbacks.best.auto_insert_metric_name=false",
    )
    with monkeypatch.context() as patch:
        sent_on_call(patch, collect, "group_advantages", signal.SIGTERM, call=4)
        assert run_command(*SETTINGS, *best, f"run_dir={tmp_path}").code == 143
    outcome = run_command(*SETTINGS, *best, f"run_dir={tmp_path}", "resume=true")
    assert outcome.code == 0, outcome.stderr
    assert (tmp_path / "metrics.csv").read_bytes() == (plain / "metrics.csv").read_bytes()
    # Of the third rollout, which was done twice, there are two: the second has a version.
    names = {file.stem.removesuffix("-v1") for file in (tmp_path / "checkpoints").glob("best_*")}
    assert names == {f"best_{epoch}_{epoch + 1}" for epoch in range(5)}


def test_a_run_that_its_own_rule_stops_is_finished_and_says_why(stopped, plain):
    run, outcome = stopped
    assert list(rewards(run)) == [1, 2, 3]
    reason = "EarlyStopping on reward/mean ended training after rollout 3 of 5"
    assert reason in outcome.stdout
    assert result(run)["status"] == "finished"
    assert result(run)["ended_early"] == reason
    assert "after" in result(run)["evaluation"]
    # every_rollouts is 2: the last one is saved all the same.
    assert (run / "checkpoints" / "rollout_000003.ckpt").exists()
    assert (plain / "metrics.csv").read_bytes().startswith((run / "metrics.csv").read_bytes())
    assert "ended_early" not in result(plain)


def test_a_stopped_run_that_was_killed_before_it_said_so_does_no_further_rollout(stopped):
    run, _ = stopped
    before = json.loads((run / "result.json").read_text())
    (run / "result.json").unlink()
    outcome = run_command(*SETTINGS, *STOP, f"run_dir={run}", "resume=true")
    assert outcome.code == 0, outcome.stderr
    after = json.loads((run / "result.json").read_text())
    assert after["ended_early"] == before["ended_early"]
    assert after["metrics"] == before["metrics"]
    assert list(rewards(run)) == [1, 2, 3]


def test_a_metric_that_is_not_measured_is_refused_with_those_that_are(tmp_path):
    outcome = run_command(
        *("+callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping",),
        *("+callbacks.stop.monitor=val_loss", f"run_dir={tmp_path}"),
    )
    assert outcome.code == 1
    [line] = outcome.stderr.splitlines()
    assert "EarlyStopping monitors 'val_loss'" in line
    assert "reward/mean" in line
