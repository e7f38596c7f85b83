"""The rule of a collapse on recorded runs of both kinds, on hand-made curves, and against its definition."""

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from papo.statistics import (
    COLLAPSE_RULE,
    FALL,
    LOST_FORM,
    PERCEPTION_KL,
    badly_formatted,
    judge_collapse,
)

RECORDED = json.loads(
    (Path(__file__).parents[1] / "golden" / "collapse_curves.json").read_text("utf-8")
)["runs"]
COLLAPSING = {"no_cure", "higher_kl_ref", "single_entropy", "clamped_kl"}
SOUND = {"demo", "grpo", "double_entropy", "masked_view_once"}

ACCURACY, KL, FORM = "resample/drawn_correct", "loss/perception_kl", "reward/error_format"
# 20 rollouts, two a tenth. Up in small steps, then a fall to a third.
UP = [0.2 + 0.02 * step for step in range(12)]
FALLEN = [*UP, *[0.15, 0.14] * 4]
RISING = [*UP, *[0.45, 0.46] * 4]
LATE_KL = [*[0.1] * 12, *[5.0] * 8]


@pytest.mark.parametrize("run", RECORDED, ids=lambda run: f"{run['arm']}-{run['seed']}")
def test_recorded_runs_that_collapsed_and_that_did_not(run):
    found = judge_collapse(run["curves"])
    assert bool(found) == (run["arm"] in COLLAPSING), (run["command"], found)


def test_every_arm_that_the_rule_is_about_is_recorded():
    assert {run["arm"] for run in RECORDED} == COLLAPSING | SOUND


def test_an_earlier_collapse_counts_where_accuracy_came_back():
    found = judge_collapse({ACCURACY: [*FALLEN, *[0.45] * 4], KL: [*LATE_KL, *[5.0] * 4]})
    assert found.rollout is not None


def test_accuracy_that_stands_still_is_no_excuse():
    lost = [*[0.05] * 12, *[0.4] * 8]
    found = judge_collapse({ACCURACY: [0.4, 0.42] * 10, KL: LATE_KL, FORM: lost})
    # Rollouts 12 and 13 have a KL of (0.1 + 5) / 2, and (0.05 + 0.4) / 2 - 0.05 = 0.175 lost their form.
    assert (found.rollout, found.signs) == (13, ("perception KL", "format errors"))
    assert found.perception_kl == 5.0
    assert found.lost_form == pytest.approx(0.35)


def test_when_and_by_which_signs():
    found = judge_collapse({ACCURACY: FALLEN, KL: LATE_KL, FORM: [0.0] * 20})
    # One standard error is sqrt((11 * 0.02^2 + 0.27^2 + 7 * 0.01^2) / (2 * 19)) = 0.0453. The best tenth
    # is 0.41; rollouts 12 and 13 lie 0.125 below it, 13 and 14 0.265, which is 5.9 errors.
    assert (found.rollout, found.signs) == (14, ("accuracy", "perception KL"))
    assert found.fall == pytest.approx(0.265 / 0.0453, rel=1e-3)
    by_form = judge_collapse({ACCURACY: FALLEN, FORM: [*[0.05] * 14, *[0.4] * 6]})
    assert (by_form.rollout, by_form.signs) == (15, ("accuracy", "format errors"))
    assert by_form.perception_kl is None


@pytest.mark.parametrize(
    ("curves", "why"),
    [
        ({ACCURACY: RISING, KL: LATE_KL}, "a policy that looks more raises the KL"),
        ({ACCURACY: FALLEN, KL: [0.3] * 20, FORM: [0.02] * 20}, "accuracy alone may be chance"),
        ({ACCURACY: RISING, KL: [0.3] * 20, FORM: [*[0.0] * 10, *[0.5] * 10]}, "cut, and right"),
        ({ACCURACY: FALLEN, KL: [*[5.0] * 6, *[0.1] * 14]}, "not at the same time"),
        ({ACCURACY: RISING, KL: LATE_KL, FORM: [1.0 - 0.05 * step for step in range(20)]}, "form"),
        ({ACCURACY: [0.5] * 20, KL: [9.0] * 20}, "nothing else is known"),
        ({ACCURACY: [], KL: []}, "no rollout yet"),
        ({}, "no run"),
        ({KL: LATE_KL}, "one curve"),
    ],
)
def test_one_sign_alone_is_no_collapse(curves, why):
    assert not judge_collapse(curves), why


def test_scatter_is_no_collapse():
    # The best tenth (0.24) is three times the last (0.08), as scatter of 0.08 alone makes it.
    accuracies = [0.08, 0.24, 0.16, 0.08, 0.24, 0.24, 0.16, 0.0, 0.16, 0.08] * 2
    assert not judge_collapse({ACCURACY: accuracies, KL: [5.0] * 20})


def test_what_is_no_number_is_no_evidence():
    broken = [math.nan if step % 5 == 0 else 5.0 for step in range(20)]
    assert not judge_collapse({ACCURACY: FALLEN, KL: [math.nan] * 20})
    assert not judge_collapse({ACCURACY: [math.nan] * 20, KL: LATE_KL})
    assert judge_collapse({ACCURACY: FALLEN, KL: broken}).perception_kl == 5.0
    assert judge_collapse({ACCURACY: FALLEN, KL: [*LATE_KL[:12], *[math.inf] * 8]})


def test_form_is_what_the_reward_grades_else_what_was_cut():
    curves = {"reward/format": [0.25, 1.0], "response/finished": [0.5, 0.5]}
    assert list(badly_formatted({FORM: [0.1, 0.2], **curves})) == [0.1, 0.2]
    assert list(badly_formatted(curves)) == [0.75, 0.0]
    assert list(badly_formatted({"response/finished": [0.75]})) == [0.25]
    assert list(badly_formatted({})) == []


def naive_rollout(accuracy, kl, form):
    """The sentence of `COLLAPSE_RULE`, one rollout at a time."""
    size = max(1, len(accuracy) // 10)
    squares = [(b - a) ** 2 / 2 for a, b in pairwise(accuracy)]
    error = math.sqrt(np.mean(squares) * 2 / size) if squares else 0.0
    for end in range(size, len(accuracy) + 1):
        tenths = [slice(stop - size, stop) for stop in range(size, end + 1)]
        fall = max(np.mean(accuracy[one]) for one in tenths) - np.mean(accuracy[tenths[-1]])
        lost = np.mean(form[tenths[-1]]) - min(np.mean(form[one]) for one in tenths)
        fell = bool(error) and fall / error > FALL
        if sum(map(bool, (fell, np.mean(kl[tenths[-1]]) > PERCEPTION_KL, lost > LOST_FORM))) >= 2:
            return end
    return None


curve = st.lists(
    st.tuples(st.integers(0, 128), st.floats(0.0, 3.0), st.integers(0, 128)),
    min_size=1,
    max_size=45,
)


@given(curve)
@settings(max_examples=150, deadline=None)
def test_the_rule_is_its_sentence(rows):
    accuracy, kl, form = ([row[place] for row in rows] for place in range(3))
    accuracy, form = [value / 128 for value in accuracy], [value / 128 for value in form]
    # Late rollouts answer a quarter as often, so that some runs do collapse.
    accuracy = [value / (4 if 2 * place > len(rows) else 1) for place, value in enumerate(accuracy)]
    found = judge_collapse({ACCURACY: accuracy, KL: kl, FORM: form})
    assert found.rollout == naive_rollout(accuracy, kl, form)


def test_the_sentence_names_the_limits():
    assert f"more than {FALL:.0f} standard errors" in COLLAPSE_RULE
    assert f"above {PERCEPTION_KL:.0f} nat" in COLLAPSE_RULE
    assert f"{100 * LOST_FORM:.0f} points" in COLLAPSE_RULE
