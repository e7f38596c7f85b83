"""Validation while training: what it measures, keeps and ends, and that it changes nothing of the run."""

import csv
import json
import math
import random

import numpy
import pytest
import torch
from lab_module import lab_module, lab_problems, train

NAMES = ("easy/accuracy", "hard-set/accuracy", "hard-set/tokens_mean")


class Report:
    def __init__(self, accuracy):
        self.accuracy = accuracy

    def scalars(self):
        return dict(zip(NAMES, (self.accuracy, 0.5, 7.0), strict=True))

    def to_dict(self):
        return {"easy": {"accuracy": self.accuracy}}


class Scripted:
    """Held-out problems on which the policy is as good as it is told; it wastes random numbers."""

    names = NAMES

    def __init__(self, *accuracies):
        self.accuracies, self.engines = list(accuracies), []

    def evaluate(self, policy, engine, *, ranks):
        torch.rand(3), numpy.random.rand(3), random.random()
        self.engines.append(engine)
        return Report(self.accuracies[len(self.engines) - 1])

    def table(self, reports):
        return str(reports)


def validation(folder, held_out, *, greedy=False, **settings):
    from papo.training import HeldOutEvaluations, Validation, validation_settings

    given = {
        "every_rollouts": 1,
        "monitor": "validation/accuracy",
        "keep_best": True,
        "patience": None,
    }
    return Validation(
        evaluations=HeldOutEvaluations(held_out, greedy=greedy, folder=folder),
        settings=validation_settings({**given, **settings}),
    )


def checkpoints_of(keep_last=1, every_rollouts=100):
    from papo.training import RolloutCheckpoint

    return RolloutCheckpoint(every_rollouts=every_rollouts, keep_last=keep_last)


def run(folder, held_out=None, *callbacks, num_rollouts=4, checkpoint=None, **settings):
    """Returns the rows of metrics.csv, cells as text."""
    folder.mkdir(exist_ok=True)
    validations = [] if held_out is None else [validation(folder, held_out, **settings)]
    module = lab_module(
        folder, source=lab_problems(), num_rollouts=num_rollouts, prompts_per_rollout=2,
        prompts_per_minibatch=2, prompts_per_microbatch=2,
    )  # fmt: skip
    train(module, folder, *validations, *callbacks, checkpoint=checkpoint)
    return list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))


def kept(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return run(tmp_path_factory.mktemp("plain") / "run")


def test_a_validation_changes_no_number_of_the_run(plain, tmp_path):
    rows = run(tmp_path / "run", Scripted(0.1, 0.2), checkpoints_of(), every_rollouts=2)
    assert [{name: row[name] for name in plain[0]} for row in rows] == plain


def test_a_validation_leaves_the_random_numbers_as_they_were(tmp_path):
    from papo.training.random_state import random_state

    found = []
    for name, held_out in (("plain", None), ("validated", Scripted(0.1, 0.2))):
        torch.manual_seed(1), numpy.random.seed(1)
        run(tmp_path / name, held_out, checkpoints_of(), num_rollouts=2)
        state = random_state()
        # Python's own numbers are drawn by the hook that checks types, too.
        found.append((state["numpy"]["state"]["key"], state["torch"]))
    plain, validated = found
    assert all(torch.equal(*pair) for pair in zip(validated, plain, strict=True))


def test_metrics_are_measured_every_so_many_rollouts_and_are_no_numbers_between(tmp_path):
    rows = run(tmp_path / "run", Scripted(0.1, 0.2), checkpoints_of(), every_rollouts=2)
    accuracies = [float(row["validation/easy/accuracy"]) for row in rows]
    assert [math.isnan(value) for value in accuracies] == [True, False, True, False]
    assert accuracies[1::2] == [0.1, 0.2]
    assert float(rows[1]["validation/hard_set/tokens_mean"]) == 7
    # Each set counts the same.
    assert float(rows[1]["validation/accuracy"]) == pytest.approx((0.1 + 0.5) / 2)
    lines = (tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line)["rollout_step"] for line in lines] == [2, 4]


def test_loggers_are_told_what_was_measured_and_nothing_else(tmp_path):
    from lightning.pytorch import Callback

    from papo.training.callbacks.record import finished_step

    told = []

    class Listens(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            told.append(dict(finished_step(pl_module).seconds))

    run(tmp_path / "run", Scripted(0.1, 0.2), checkpoints_of(), Listens(), every_rollouts=2)
    assert [one["validation"] > 0 for one in told] == [False, True, False, True]


def test_the_checkpoint_of_the_best_validation_stays(tmp_path):
    from papo.training import best_checkpoint, read_best

    rows = run(tmp_path / "run", Scripted(0.1, 0.6, 0.6, 0.3), checkpoints_of())
    assert len(rows) == 4
    # Of equals the first.
    assert kept(tmp_path / "run") == ["rollout_000002.ckpt", "rollout_000004.ckpt"]
    best = read_best(tmp_path / "run")
    assert (best.rollout_step, best.metric) == (2, "validation/accuracy")
    path = best_checkpoint(tmp_path / "run")
    assert torch.load(path, weights_only=True)["papo"]["rollout_step"] == 2


def test_without_keep_best_only_the_newest_stay(tmp_path):
    from papo.training import read_best

    run(tmp_path / "run", Scripted(0.6, 0.1, 0.1, 0.1), checkpoints_of(), keep_best=False)
    assert kept(tmp_path / "run") == ["rollout_000004.ckpt"]
    assert read_best(tmp_path / "run") is None


def test_the_best_is_of_the_metric_that_is_monitored(tmp_path):
    from papo.training import read_best

    run(
        tmp_path / "run",
        Scripted(0.1, 0.6, 0.1, 0.1),
        checkpoints_of(),
        monitor="validation/hard_set/accuracy",
    )
    assert read_best(tmp_path / "run").rollout_step == 1


def test_a_run_that_gets_no_better_ends(tmp_path):
    rows = run(tmp_path / "run", Scripted(0.1, 0.4, 0.3, 0.2), checkpoints_of(), patience=1)
    assert [row["rollout_step"] for row in rows] == ["1", "2", "3"]
    assert kept(tmp_path / "run") == ["rollout_000002.ckpt", "rollout_000003.ckpt"]


NAN = math.nan


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [((NAN, 0.2, 0.1, NAN), 2), ((0.2, NAN, 0.3, NAN), 3), ((NAN, NAN, NAN, NAN), None)],
)
def test_what_is_no_number_is_never_the_best(tmp_path, accuracies, best):
    from papo.training import read_best

    rows = run(tmp_path / "run", Scripted(*accuracies), checkpoints_of())
    assert len(rows) == 4
    found = read_best(tmp_path / "run")
    assert (found and found.rollout_step) == best


def test_an_early_end_says_how_many_validations_were_no_number(tmp_path):
    (tmp_path / "run").mkdir()
    callback = validation(tmp_path / "run", Scripted(0.4, NAN, 0.3), patience=2)
    module = lab_module(
        tmp_path / "run", source=lab_problems(), num_rollouts=5, prompts_per_rollout=2,
        prompts_per_minibatch=2, prompts_per_microbatch=2,
    )  # fmt: skip
    train(module, tmp_path / "run", callback, checkpoints_of())
    assert module.rollout_step == 3
    assert callback.rule == (
        "validation.patience=2 on validation/accuracy (1 of the last 2 was no number)"
    )
    resumed = validation(tmp_path / "run", Scripted(), patience=2)
    resumed.load_state_dict(callback.state_dict())
    assert resumed.rule == callback.rule


def test_a_resumed_run_remembers_the_best_and_how_long_it_waits(tmp_path):
    from papo.training import best_checkpoint, read_best

    settings = {"num_rollouts": 5, "patience": 2}
    whole = run(tmp_path / "whole", Scripted(0.1, 0.6, 0.2, 0.3), checkpoints_of(), **settings)
    # As if killed after the third rollout, whose checkpoint is there.
    run(tmp_path / "run", Scripted(0.1, 0.6, 0.2), checkpoints_of(2), num_rollouts=3, patience=2)
    newest = tmp_path / "run" / "checkpoints" / "rollout_000003.ckpt"
    (tmp_path / "run" / "best.json").write_text('{"rollout_step": 3}')
    rows = run(
        tmp_path / "run", Scripted(0.3), checkpoints_of(), checkpoint=newest, **settings
    )  # fmt: skip
    assert rows == whole
    assert len(rows) == 4
    assert read_best(tmp_path / "run") == read_best(tmp_path / "whole")
    assert best_checkpoint(tmp_path / "run").name == "rollout_000002.ckpt"


def test_what_was_evaluated_is_not_evaluated_again(tmp_path):
    held_out = Scripted(0.1, 0.2, 0.3, 0.4)
    run(tmp_path / "run", held_out, checkpoints_of())
    (tmp_path / "run" / "metrics.csv").unlink()
    rows = run(tmp_path / "run", Scripted(), checkpoints_of())
    assert [float(row["validation/easy/accuracy"]) for row in rows] == [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize("greedy", [True, False])
def test_greedy_takes_the_most_likely_tokens_of_the_same_policy(tmp_path, greedy):
    held_out = Scripted(0.1, 0.2)
    run(tmp_path / "run", held_out, checkpoints_of(), num_rollouts=2, greedy=greedy)
    assert [engine.top_k for engine in held_out.engines] == [1 if greedy else None] * 2


def test_a_folder_without_a_best_checkpoint_says_how_to_get_one(tmp_path):
    from papo.storage.files import DamagedFile
    from papo.training import best_checkpoint

    with pytest.raises(FileNotFoundError, match=r"validation\.every_rollouts=N"):
        best_checkpoint(tmp_path)
    for text in ('{"rollout_step": "../x", "metric": "m", "value": 1}', "[]", '{"metric": "m"}'):
        (tmp_path / "best.json").write_text(text)
        with pytest.raises(DamagedFile):
            best_checkpoint(tmp_path)
    (tmp_path / "best.json").write_text('{"rollout_step": 2, "metric": "m", "value": 1}')
    with pytest.raises(FileNotFoundError, match=r"rollout_000002\.ckpt, and it is not there"):
        best_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("evaluation", {"num_problems": 0}, "evaluation.num_problems is a whole number"),
        ("evaluation", {"greedy": True, "num_responses": 2}, "evaluation.num_responses=1"),
        ("evaluation", {"greedy": 1}, "evaluation.greedy is true or false"),
        ("evaluation", {"shots": 1}, "unknown key evaluation.shots"),
        ("validation", {"every_rollouts": -1}, "validation.every_rollouts"),
        ("validation", {"every_rollouts": 0, "patience": 2}, "Set validation.every_rollouts"),
        ("validation", {"patience": 0}, "validation.patience"),
        ("validation", {"patience": True}, "validation.patience"),
    ],
)
def test_impossible_settings_are_refused_with_their_key(section, changes, message):
    from papo.training import held_out_settings, validation_settings

    read, fine = {
        "evaluation": (
            held_out_settings,
            {
                "num_problems": None,
                "num_responses": 1,
                "greedy": True,
                "seed": 0,
                "tokens_per_batch": 9,
            },
        ),
        "validation": (
            validation_settings,
            {"every_rollouts": 1, "monitor": "m", "keep_best": True, "patience": None},
        ),
    }[section]
    read(fine)
    with pytest.raises(ValueError) as refusal:
        read({**fine, **changes})
    assert message in str(refusal.value)


def test_a_metric_that_no_validation_measures_is_no_monitor(tmp_path):
    from papo.training import check_monitor

    settings = validation(tmp_path, Scripted()).settings
    check_monitor(settings, ("validation/accuracy",))
    with pytest.raises(ValueError, match=r"validation\.monitor is one of validation/other"):
        check_monitor(settings, ("validation/other",))
