"""The sequential test of a collapse: what it rings on, what it leaves alone, and that it continues exactly."""

import json
import math
import random
from pathlib import Path
from statistics import median

import pytest
import yaml
from shape_checks import unchecked

from papo.safeguard import CollapseDetector, Signal, detector, replay

ROOT = Path(__file__).parents[2]
FORM, MASKED = "reward/error_format", "policy/sampled_masked_entropy"
NAMES = {FORM: "badly formatted", MASKED: "masked entropy"}
SETTINGS = {
    key: value
    for key, value in yaml.safe_load(
        (ROOT / "conf" / "safeguard" / "common" / "detector.yaml").read_text("utf-8")
    ).items()
    if key != "_target_"
}
RECORDED = json.loads((ROOT / "tests" / "golden" / "collapse_curves.json").read_text("utf-8"))


def small(**changes) -> CollapseDetector:
    """Numbers that a hand can follow."""
    signals = {"badly formatted": Signal(columns=(FORM, "-reward/format"), floor=0.01, memory=10)}
    numbers = {"limit": 8.0, "allowance": 1.0, "excess_cap": 5.0}
    return CollapseDetector(**{"signals": signals, "baseline_rollouts": 4, **numbers, **changes})


def shipped(**changes) -> CollapseDetector:
    return CollapseDetector(**{**SETTINGS, **changes})


def first_alarm(curves, **changes):
    return next((alarm for alarm in replay(shipped(**changes), curves) if alarm), None)


def sequences(count, seed, *, form, masked, rollouts=60):
    """Curves of runs: a share of `responses` drawn anew, and the masked entropy around a level, by rollout."""
    draw = random.Random(seed)
    for _ in range(count):
        yield {
            FORM: [min(1.0, max(0.0, draw.gauss(*form(step)))) for step in range(rollouts)],
            MASKED: [math.exp(draw.gauss(*masked(step))) for step in range(rollouts)],
        }


def naive(values, *, floor, allowance, cap, baseline, memory):
    """The definition, with lists."""
    values = [value for value in values if math.isfinite(value)]
    if len(values) <= baseline:
        return 0.0
    reference, total = median(values[:baseline]), 0.0
    for place in range(baseline, len(values)):
        moves = [abs(values[step] - values[step - 1]) for step in range(1, place)]
        scale = max(floor, 1.4826 * (1 + 6 / len(moves)) * median(moves) / math.sqrt(2))
        distance = values[place] - reference
        total = max(0.0, total + min(distance / scale - allowance, cap))
        reference += min(max(distance, -cap * scale), cap * scale) / memory
    return total


@pytest.mark.parametrize("seed", range(20))
def test_the_statistic_is_the_definition(seed):
    draw = random.Random(seed)
    shares = [draw.choice([0.0, 0.01, 0.05, 0.4, math.nan, draw.random()]) for _ in range(40)]
    watch = small()
    replay(watch, {FORM: shares})
    expected = naive(shares, floor=0.01, allowance=1.0, cap=5.0, baseline=4, memory=10)
    assert watch.statistic == pytest.approx(expected, rel=1e-12)
    assert watch.statistics == {"badly formatted": watch.statistic}


def test_a_broken_form_rings_in_its_second_rollout():
    rang = replay(small(), {FORM: [*[0.0] * 10, 0.3, 0.3]})
    # (0.3 - 0) / 0.01 - 1 = 29 is capped at 5: one rollout is no alarm, two have 10 > 8.
    assert rang[:-1] == [None] * 11
    assert rang[-1] is not None
    assert (rang[-1].rollout, rang[-1].signals, rang[-1].statistic) == (
        12,
        ("badly formatted",),
        10.0,
    )


@pytest.mark.parametrize("row", [{}, {FORM: math.nan}, {FORM: math.inf}], ids=str)
def test_what_is_no_number_is_no_evidence(row):
    watch = small()
    for share in (0.0, 0.0, 0.0, 0.0, 0.03):
        watch.update({FORM: share})
    before = watch.statistic
    for _ in range(50):
        assert watch.update(row) is None
    assert watch.statistic == before == pytest.approx(2.0)


def test_the_other_column_speaks_where_the_first_is_absent():
    shares = (0.0, 0.01, 0.0, 0.0, 0.02, 0.04)
    one, other, empty = small(), small(), small()
    replay(one, {FORM: shares})
    replay(other, {"reward/format": [1 - share for share in shares]})
    replay(empty, {FORM: [math.nan] * 6, "reward/format": [1 - share for share in shares]})
    assert one.statistic > 0
    assert [other.statistic, empty.statistic] == pytest.approx([one.statistic] * 2)


def test_signals_add_up():
    broken = {FORM: [*[0.0] * 9, 0.15], MASKED: [*[0.2] * 9, 1.2]}
    both, form, masked = shipped(), shipped(), shipped()
    replay(both, broken)
    replay(form, {FORM: broken[FORM]})
    replay(masked, {MASKED: broken[MASKED]})
    assert form.statistic > 0
    assert masked.statistic > 0
    assert both.statistic == pytest.approx(form.statistic + masked.statistic)


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("form", "masked", "most"),
    [
        # Of 128 responses 1 % malformed; what the lab's sound runs have.
        (lambda _: (0.01, 0.009), lambda _: (-1.7, 0.15), 0.0),
        # The form is learned, and looking raises the masked entropy threefold over the run.
        (lambda step: (0.3 - 0.005 * step, 0.03), lambda step: (-1.7 + 0.02 * step, 0.15), 0.0),
        # Scatter many times the floors: only the run's own scale holds it.
        (lambda _: (0.3, 0.1), lambda _: (-1.7, 1.0), 0.01),
    ],
    ids=["stationary", "learning", "scattering"],
)
def test_sound_sequences_ring_at_most_at_the_stated_rate(form, masked, most, count, monkeypatch):
    if count > 500:
        unchecked(monkeypatch, detector, Signal, CollapseDetector)
    drawn = sequences(count, 1, form=form, masked=masked)
    rang = sum(first_alarm(curves) is not None for curves in drawn)
    assert rang <= most * count


@pytest.mark.parametrize("start", [0.01, 0.3])
def test_both_kinds_of_collapse_ring_from_any_level(start):
    runaway = {
        FORM: [start] * 60,
        MASKED: [0.2 * math.exp(max(0, step - 20) / 12) for step in range(60)],
    }
    broken = {FORM: [*[start] * 40, *[start + 0.35] * 20], MASKED: [0.2] * 60}
    alarm = first_alarm(runaway)
    assert alarm is not None
    assert 25 < alarm.rollout < 50
    assert alarm.signals == ("masked entropy",)
    alarm = first_alarm(broken)
    assert alarm is not None
    assert alarm.rollout == 42  # no rollout rings alone
    assert alarm.signals == ("badly formatted",)


@pytest.mark.parametrize("run", RECORDED["runs"], ids=lambda run: f"{run['arm']}-{run['seed']}")
def test_recorded_runs(run):
    """Runs of other commits, which have no masked entropy: the form alone."""
    collapsed = run["arm"] in {"no_cure", "higher_kl_ref", "single_entropy", "clamped_kl"}
    assert (first_alarm(run["curves"]) is not None) == collapsed


def test_continued_from_its_state_it_says_the_same():
    curves = next(iter(sequences(1, 3, form=lambda _: (0.1, 0.1), masked=lambda _: (-1.7, 0.8))))
    curves[MASKED][7] = math.nan
    rows = [{name: values[step] for name, values in curves.items()} for step in range(60)]
    expected = replay(whole := shipped(), curves)
    for cut in range(0, 60, 3):
        first, second = shipped(), shipped()
        said = [first.update(row) for row in rows[:cut]]
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert said + [second.update(row) for row in rows[cut:]] == expected
        assert second.state_dict() == whole.state_dict()


def test_a_kept_state_does_not_move_with_the_detector():
    watch = small()
    replay(watch, {FORM: [0.0] * 5})
    kept = json.dumps(state := watch.state_dict())
    replay(watch, {FORM: [0.5] * 5})
    assert json.dumps(state) == kept
    again = small()
    again.load_state_dict(state)
    again.update({FORM: 0.5})
    assert json.dumps(state) == kept


def test_a_state_of_other_signals_is_refused():
    with pytest.raises(ValueError, match=r"Set safeguard\.detector\.signals"):
        small().load_state_dict(shipped().state_dict())


@pytest.mark.parametrize(
    "change",
    [
        {"limit": 0.0},
        {"excess_cap": -1.0},
        {"limit": math.nan},
        {"allowance": -1.0},
        {"baseline_rollouts": 0},
        {"signals": {"form": {"columns": [FORM], "floor": 0.0, "memory": 5}}},
        {"signals": {"form": {"columns": [FORM], "floor": 0.1, "memory": 0}}},
    ],
    ids=str,
)
def test_numbers_out_of_range_are_refused(change):
    with pytest.raises(ValueError, match=r"safeguard\.detector\.\w.*; got (-1|0|nan)"):
        small(**change)
