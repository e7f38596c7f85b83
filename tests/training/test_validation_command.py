"""`python train.py validation.every_rollouts=N`: what it leaves, how it resumes, and who reads the best checkpoint."""

import csv
import json
import math
import signal

import pytest
from command import result, run_command, sent_on_call

SETTINGS = (
    "training.num_rollouts=5",
    "callbacks.checkpoint.every_rollouts=3",
    "callbacks.checkpoint.keep_last=1",
    "evaluation.num_problems=3",
)
VALIDATION = ("validation.every_rollouts=2",)


def table(run):
    return list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))


def done(run, *overrides):
    outcome = run_command(*SETTINGS, *overrides, f"run_dir={run}")
    assert outcome.code == 0, outcome.stderr
    return run


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return done(tmp_path_factory.mktemp("plain") / "run")


@pytest.fixture(scope="module")
def validated(tmp_path_factory):
    return done(tmp_path_factory.mktemp("validated") / "run", *VALIDATION, "logger=tensorboard")


def test_the_metrics_of_the_run_are_those_of_one_without_it(plain, validated):
    names = table(plain)[0]
    assert [{name: row[name] for name in names} for row in table(validated)] == table(plain)


def test_validations_stand_between_the_evaluations_before_and_after(validated):
    lines = (validated / "evaluations.jsonl").read_text().splitlines()
    records = {record["rollout_step"]: record for record in map(json.loads, lines)}
    assert list(records) == [0, 2, 4, 5]
    evaluation = result(validated)["evaluation"]
    assert evaluation == {"before": records[0]["sets"], "after": records[5]["sets"]}
    for row in table(validated):
        measured = records.get(int(row["rollout_step"]), {}).get("metrics", {})
        is_validated = row["rollout_step"] in "24"
        assert math.isnan(float(row["validation/accuracy"])) is not is_validated
        if is_validated:
            names = {name for name in row if name.startswith("validation/")}
            assert {name: float(row[name]) for name in names} == measured
    assert "validation/counter_prior/perception" in table(validated)[0]
    assert not any(name.startswith("validation/") for name in result(validated)["metrics"])


def test_loggers_are_told_all_four(validated):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(validated / "tensorboard")).Reload()
    told = events.Scalars("validation/accuracy")
    assert [event.step for event in told] == [0, 2, 4, 5]


def test_an_interrupted_run_goes_on_to_the_same_metrics_and_the_same_best(
    validated, tmp_path, monkeypatch
):
    from papo.training import collect

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        # In the middle of the fifth rollout: the newest checkpoint is of the third or, if it is the best, the fourth.
        sent_on_call(patch, collect, "group_advantages", signal.SIGTERM, call=5)
        assert run_command(*SETTINGS, *VALIDATION, f"run_dir={run}").code == 143
    assert run_command(f"run_dir={run}", "resume=true", short=False).code == 0
    for name in ("metrics.csv", "evaluations.jsonl", "best.json"):
        assert (run / name).read_bytes() == (validated / name).read_bytes()
    kept = [
        {path.name for path in (each / "checkpoints").iterdir()} for each in (run, validated)
    ]  # fmt: skip
    assert kept[0] == kept[1]
    assert result(run)["best"] == result(validated)["best"]


def test_the_best_checkpoint_is_found_by_its_name(validated):
    from omegaconf import OmegaConf

    from papo.commands.analysis import is_training_run
    from papo.commands.policy_source import find_policy, trained_checkpoint

    step = result(validated)["best"]["rollout_step"]
    best = validated / "checkpoints" / f"rollout_{step:06d}.ckpt"
    assert trained_checkpoint(validated / "best") == best
    model = OmegaConf.load(validated / "config.yaml").model
    assert find_policy(str(validated / "best"), model).trained == best
    assert is_training_run(validated / "best")
    assert not is_training_run(validated / "worst")


def test_a_run_that_was_not_validated_has_no_best_and_says_so(plain):
    from papo.commands.policy_source import trained_checkpoint

    with pytest.raises(FileNotFoundError, match=r"validation\.every_rollouts=N"):
        trained_checkpoint(plain / "best")


def test_any_benchmark_validates_greedily_and_a_run_that_gets_no_better_ends(tmp_path):
    outcome = run_command(
        *SETTINGS,
        *("benchmark=lab", "evaluation.greedy=true", "evaluation.num_responses=1"),
        *("validation.every_rollouts=1", "validation.patience=1", "optimizer.lr=1e-12"),
        "validation.monitor=validation/lab_prior/accuracy",
        f"run_dir={tmp_path}",
    )
    assert outcome.code == 0, outcome.stderr
    # Nothing moves, so the second validation is no better.
    reason = "validation.patience=1 on validation/lab_prior/accuracy ended training after rollout 2"
    assert reason in outcome.stdout
    assert reason in result(tmp_path)["ended_early"]
    assert result(tmp_path)["best"]["rollout_step"] == 1
    before, after = (result(tmp_path)["evaluation"][moment] for moment in ("before", "after"))
    assert after == before
    assert set(after) == {"PerceptionLab, training prior", "PerceptionLab, counter-prior"}
    assert (tmp_path / "checkpoints" / "rollout_000001.ckpt").exists()


BEST = "+callbacks.best._target_=lightning.pytorch.callbacks.ModelCheckpoint"
STOP = "+callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((BEST, "+callbacks.best.monitor=validation/accuracy"), "Set validation.keep_best"),
        ((STOP, "+callbacks.stop.monitor=validation/accuracy"), "Set validation.patience"),
        (
            (
                STOP,
                "+callbacks.stop.monitor=reward/mean",
                "+callbacks.stop.check_on_train_epoch_end=false",
            ),
            "waits for a validation of Lightning's",
        ),
        ((BEST, "+callbacks.best.save_on_train_epoch_end=false"), "waits for a validation"),
        (("validation.patience=2",), "Set validation.every_rollouts"),
        ((*VALIDATION, "validation.monitor=reward/mean"), "validation.monitor is one of"),
        ((*VALIDATION, "~callbacks.checkpoint"), "validation.keep_best=false"),
        (("evaluation.num_problems=null",), "evaluation.num_problems=null"),
        (("evaluation.greedy=true", "evaluation.num_responses=2"), "evaluation.num_responses=1"),
        (("rollout.max_response_tokens=5",), "rollout.max_response_tokens=5"),
        (("schedule.warmup_updates=9",), "schedule.warmup_updates=9"),
        (("optimizer.weight_decay_of=norms",), "optimizer.weight_decay_of"),
        (("optimizer.lr=1e-3a",), "optimizer.lr is a number"),
        (("optimizer._target_=torch.optim.SGD",), "unknown key: optimizer.betas"),
        (("+trainer.accumulate_grad_batches=4",), "set training.prompts_per_microbatch"),
    ],
)
def test_what_would_do_nothing_or_cannot_be_is_one_line_before_anything_is_loaded(
    tmp_path, overrides, message
):
    outcome = run_command(*overrides, f"run_dir={tmp_path / 'run'}")
    assert outcome.code == 1
    [line] = outcome.stderr.splitlines()
    assert message in line
    assert not (tmp_path / "run" / "run.json").exists()


def test_data_that_hold_nothing_out_need_a_benchmark(tmp_path):
    from omegaconf import OmegaConf

    from papo.commands.training.held_out import evaluation_callbacks, make_held_out
    from papo.training import held_out_settings, validation_settings

    evaluation = {
        "num_problems": 3,
        "num_responses": 1,
        "greedy": False,
        "seed": 0,
        "tokens_per_batch": 9,
    }
    config = OmegaConf.create({"benchmark": {"sets": {}}})
    assert make_held_out(config, [1, 2], held_out_settings(evaluation)) is None
    settings = {"every_rollouts": 1, "monitor": "m", "keep_best": True, "patience": None}
    with pytest.raises(ValueError, match="benchmark=geometry3k"):
        evaluation_callbacks(None, validation_settings(settings))


def test_a_longer_run_is_refused_where_the_rate_falls_over_the_whole_run(tmp_path):
    done(tmp_path / "run", "schedule=cosine", "training.num_rollouts=2")
    longer = run_command(
        f"run_dir={tmp_path / 'run'}", "resume=true", "training.num_rollouts=4", short=False
    )
    assert longer.code == 1
    assert "schedule.decay=cosine" in longer.stderr
