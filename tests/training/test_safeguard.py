"""The safeguard beside training: it changes nothing until it acts, and what it does is exact."""

import csv
import json
import math

import pytest
import torch
from lab_module import NUM_RESPONSES, lab_module, lab_objective, reward_by_row, train

from papo.safeguard import Alarm, CollapseDetector, Controller, Rollbacks
from papo.training.callbacks import Safeguard
from papo.training.callbacks.safeguard import steered_terms
from papo.training.checkpoints import RolloutCheckpoint, checkpoint_path

LIVE = {"gamma": 0.1, "eta_masked": 0.1, "eta_full": 0.1, "masked_policy": "current"}
OPEN = {"x": {"columns": ["rollout_step"], "above": math.inf, "width": 1.0}}
OUTSIDE = {"x": {"columns": ["rollout_step"], "above": 0.5, "width": 0.5}}


class Bell(CollapseDetector):
    """Rings after the rollouts that it was told, and is suspicious before."""

    def __init__(self, rings=(), suspicious=()):
        self.limit = 1.0
        self.rings, self.suspicious, self.seen = set(rings), set(suspicious), 0

    @property
    def statistic(self):
        return float(self.seen in self.rings | self.suspicious)

    def update(self, row):
        self.seen = int(row["rollout_step"])
        if self.seen not in self.rings:
            return None
        return Alarm(rollout=self.seen, signals=("bell",), statistic=1.0, limit=1.0)

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


def acting(bell=None, signals=OPEN, **changes):
    controller = Controller(
        signals=signals, baseline_rollouts=1, memory=0.0, fall=0.5, rise=1.0, least=0.0
    )
    rollbacks = Rollbacks(**{"max_rollbacks": 3, "quiet": 0.5, "shrink": 0.5, **changes})
    return Safeguard(detector=bell or Bell(), controller=controller, rollbacks=rollbacks)


def saving(every_rollouts=2, keep_last=9):
    return RolloutCheckpoint(every_rollouts=every_rollouts, keep_last=keep_last)


def run(folder, *callbacks, checkpoint=None, **settings):
    """Returns the trained parameters and the rows of metrics.csv."""
    folder.mkdir(exist_ok=True)
    settings = {"reward": reward_by_row(NUM_RESPONSES), "num_rollouts": 6, **LIVE, **settings}
    trained = train(lab_module(folder, **settings), folder, *callbacks, checkpoint=checkpoint)
    return trained, rows_of(folder)


def rows_of(folder):
    return list(csv.DictReader((folder / "metrics.csv").read_text("utf-8").splitlines()))


def said(folder):
    file = folder / "safeguard.jsonl"
    return (
        [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []
    )


def saved(folder, step):
    return torch.load(checkpoint_path(folder / "checkpoints", step), weights_only=True)


def plain(rows):
    return [{k: v for k, v in row.items() if not k.startswith("safeguard/")} for row in rows]


def column(rows, name):
    return [float(row[f"safeguard/{name}"]) for row in rows]


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def off(tmp_path_factory):
    return run(tmp_path_factory.mktemp("off") / "run")


def test_who_only_warns_changes_nothing_and_says_it_once(tmp_path, off):
    trained, rows = run(tmp_path / "run", Safeguard(detector=Bell(rings=(3, 4))))
    assert same(trained, off[0])
    assert plain(rows) == off[1]
    assert column(rows, "alarm") == [0, 0, 1, 1, 0, 0]
    [line] = said(tmp_path / "run")
    assert (line["rollout_step"], line["what"]) == (3, "alarm")
    assert "bell" in line["says"]


def test_who_acts_on_a_healthy_run_changes_nothing(tmp_path, off):
    trained, rows = run(tmp_path / "run", acting(), saving())
    assert same(trained, off[0])
    assert plain(rows) == off[1]
    assert column(rows, "factor") == [1.0] * 6
    assert said(tmp_path / "run") == []


def test_a_signal_beyond_its_bound_holds_the_weights_back_from_the_next_rollout_on(tmp_path, off):
    _, rows = run(tmp_path / "run", acting(signals=OUTSIDE), saving(), num_rollouts=4)
    assert column(rows, "factor") == [1.0, 1.0, 0.5, 0.25]
    assert plain(rows)[:2] == off[1][:2]
    last = {name: float(value) for name, value in rows[3].items()}
    # Steered are the perception KL and the masked entropy, and the entropy of the image, which is sampled.
    total = (
        last["loss/surrogate"] * steered_sign("surrogate")
        + 0.01 * last["loss/kl_ref"]
        - 0.1 * 0.25 * last["loss/perception_kl"]
        + 0.1 * 0.25 * last["loss/masked_entropy"]
        + 0.1 * 0.25 * last["loss/entropy"]
    )
    assert last["loss/total"] == pytest.approx(total, rel=1e-4)
    [line] = said(tmp_path / "run")
    assert (line["rollout_step"], line["what"]) == (2, "steers")


def steered_sign(name):
    weight = lab_objective(**LIVE).weights(0.0)[name]
    return math.copysign(1.0, weight)


def test_a_rollback_has_the_weights_of_the_healthy_checkpoint_and_goes_on_with_new_problems(
    tmp_path,
):
    bell = Bell(rings=(5,), suspicious=(4,))
    _, rows = run(tmp_path / "run", acting(bell), saving())
    healthy, after = saved(tmp_path / "run", 2), saved(tmp_path / "run", 5)
    assert same(after["state_dict"], healthy["state_dict"])
    assert after["optimizer_states"] == healthy["optimizer_states"]
    assert (after["papo"]["rollout_step"], after["papo"]["prompts_drawn"]) == (5, 20)
    assert [int(row["rollout_step"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [int(row["prompts_drawn"]) for row in rows] == [4, 8, 12, 16, 20, 24]
    assert [x for x in column(rows, "returned_to") if not math.isnan(x)] == [2.0]
    assert column(rows, "factor") == [1.0] * 5 + [0.5]
    [line] = said(tmp_path / "run")
    assert "goes on from rollout 2" in line["says"]


def test_a_momentum_is_that_of_the_healthy_checkpoint(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    module = lab_module(folder, reward=reward_by_row(NUM_RESPONSES), num_rollouts=3, **LIVE)
    module.policy_module.make_optimizer = lambda p: torch.optim.AdamW(p, lr=1e-3)
    train(module, folder, acting(Bell(rings=(3,), suspicious=(2,))), saving(every_rollouts=1))
    [healthy], [after] = (saved(folder, step)["optimizer_states"] for step in (1, 3))
    assert all(
        torch.equal(healthy["state"][number][name], value)
        for number, state in after["state"].items()
        for name, value in state.items()
    )


@pytest.mark.parametrize("start", [2, 4, 5], ids="from rollout {}".format)
def test_a_resumed_run_ends_as_the_uninterrupted_one(start, tmp_path):
    """From before the alarm it rings and goes back again; from the rollback itself it goes on."""
    whole, again = tmp_path / "whole", tmp_path / "again"
    bell = {"rings": (5,), "suspicious": (4,)}
    expected, rows = run(whole, acting(Bell(**bell), signals=OUTSIDE), saving())
    again.mkdir()
    (whole / "checkpoints").rename(again / "checkpoints")
    for step in (4, 5, 6):
        if step > start:
            checkpoint_path(again / "checkpoints", step).unlink()
    trained, resumed = run(
        again,
        acting(Bell(**bell), signals=OUTSIDE),
        saving(),
        checkpoint=checkpoint_path(again / "checkpoints", start),
    )
    assert same(trained, expected)
    assert resumed == rows[start:]


def test_a_second_alarm_right_after_goes_back_to_where_the_first_went_on(tmp_path):
    bell = Bell(rings=(4, 5), suspicious=(3,))
    _, rows = run(tmp_path / "run", acting(bell), saving())
    found = {int(r["rollout_step"]): float(r["safeguard/returned_to"]) for r in rows}
    assert (found[4], found[5]) == (2.0, 4.0)
    # What the second left it did not learn: both have the weights of the first checkpoint.
    assert same(saved(tmp_path / "run", 5)["state_dict"], saved(tmp_path / "run", 2)["state_dict"])
    assert column(rows, "factor") == [1, 1, 1, 1, 0.5, 0.25]


def test_an_alarm_before_the_first_checkpoint_is_due_goes_back_to_the_start(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    module = lab_module(folder, reward=reward_by_row(NUM_RESPONSES), num_rollouts=2, **LIVE)
    start = {n: p.detach().clone() for n, p in module.policy_module.policy.named_parameters()}
    trained = train(module, folder, acting(Bell(rings=(2,))), saving(every_rollouts=5))
    assert column(rows_of(folder), "returned_to")[1] == 0.0
    assert all(torch.equal(start[name], value) for name, value in trained.items())


def test_without_a_healthy_checkpoint_it_goes_on_from_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("papo.training.callbacks.safeguard.checkpoints", lambda folder: {})
    bell = Bell(rings=(1, 3))
    _, rows = run(tmp_path / "run", acting(bell), saving(every_rollouts=1), num_rollouts=4)
    assert all(math.isnan(x) for x in column(rows, "returned_to"))
    assert column(rows, "factor") == [1.0, 0.5, 0.5, 0.25]
    assert all("no healthy checkpoint" in line["says"] for line in said(tmp_path / "run"))


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    class Damaging(Bell):
        def update(self, row):
            if row["rollout_step"] == 4:
                path = checkpoint_path(tmp_path / "run" / "checkpoints", 2)
                path.write_bytes(path.read_bytes()[:-100])
            return super().update(row)

    bell = Damaging(rings=(4,), suspicious=(3,))
    _, rows = run(tmp_path / "run", acting(bell), saving(every_rollouts=1), num_rollouts=4)
    assert column(rows, "returned_to")[3] == 1.0


def test_after_the_last_rollback_an_alarm_ends_the_run_with_healthy_weights(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    module = lab_module(folder, reward=reward_by_row(NUM_RESPONSES), num_rollouts=6, **LIVE)
    bell = Bell(rings=(3, 5), suspicious=(2, 4))
    guard = acting(bell, max_rollbacks=1)
    trained = train(module, folder, guard, saving(every_rollouts=1))
    assert module.rollout_step == 5
    assert guard.rule is not None
    assert "safeguard.rollbacks.max_rollbacks=1" in guard.rule
    healthy = saved(folder, 1)["state_dict"]
    assert all(torch.equal(healthy[f"policy_module.policy.{n}"], v) for n, v in trained.items())
    assert "the run ends" in said(folder)[-1]["says"]


def test_responses_that_a_left_policy_wrote_ahead_are_let_go_of(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    module = lab_module(folder, reward=reward_by_row(NUM_RESPONSES), num_rollouts=5, **LIVE)
    module.collector.ahead.rollouts = 1
    ages, collect = [], module.collector.collect

    def noting(*arguments, **keywords):
        rollout = collect(*arguments, **keywords)
        ages.append(rollout.age)
        return rollout

    module.collector.collect = noting
    train(module, folder, acting(Bell(rings=(3,), suspicious=(2,))), saving(every_rollouts=1))
    # The fourth rollout is written anew by the policy that learns from it.
    assert ages == [0.0, 1.0, 1.0, 0.0, 1.0]


def test_with_nothing_to_steer_it_warns_alone(tmp_path, caplog):
    settings = {"gamma": 0.0, "eta_masked": 0.0, "num_rollouts": 3}
    plain_run, plain_rows = run(tmp_path / "plain", saving(), **settings)
    trained, rows = run(
        tmp_path / "run", acting(Bell(rings=(2, 3)), signals=OUTSIDE), saving(), **settings
    )
    assert same(trained, plain_run)
    assert plain(rows) == plain_rows
    assert column(rows, "factor") == [1.0] * 3
    assert [line["what"] for line in said(tmp_path / "run")] == ["alarm"]
    assert "raises none" in caplog.text


def test_going_back_needs_checkpoints(tmp_path):
    with pytest.raises(ValueError, match=r"safeguard\.rollbacks\.max_rollbacks=0"):
        run(tmp_path / "run", acting())
    run(tmp_path / "other", acting(max_rollbacks=0), num_rollouts=1)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (LIVE, ("perception_kl", "entropy", "masked_entropy")),
        ({**LIVE, "eta_masked": 0.0, "entropy": "exact"}, ("perception_kl",)),
        ({**LIVE, "masked_policy": "old", "eta_masked": 0.0}, ("perception_kl", "entropy")),
        ({**LIVE, "gamma": 0.0}, ()),
    ],
)
def test_what_is_steered(settings, names):
    assert steered_terms(lab_objective(**settings)) == names
