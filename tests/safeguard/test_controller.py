"""The factor of the steered weights: what moves it, how far, and that it goes on exactly."""

import json
import math

import pytest

from papo.safeguard import Controller, Held

COLUMN = "policy/masked_preferred_fraction"


def controller(**changes):
    held = Held(columns=(COLUMN,), below=0.2, above=0.2, width=0.1)
    settings = {"baseline_rollouts": 1, "memory": 0.0, "fall": 0.5, "rise": 2.0, "least": 0.1}
    steered = Controller(signals={"preference": held}, **{**settings, **changes})
    steered.update({COLUMN: 0.4})
    return steered


def after(steered, *values):
    said = [steered.update({COLUMN: value}) for value in values]
    return steered.factor, said


def test_inside_the_bounds_the_factor_is_exactly_one():
    assert after(controller(), 0.2, 0.6, 0.35, math.nan) == (1.0, [None] * 4)


@pytest.mark.parametrize("value", [0.15, 0.65])
def test_half_a_width_beyond_either_bound_takes_half_of_the_fall(value):
    # 0.05 of 0.1 beyond: 1 - 0.5 * 0.5.
    factor, said = after(controller(), value)
    assert factor == pytest.approx(0.75)
    assert said == ["preference"]


def test_far_beyond_a_bound_it_falls_at_full_speed_to_zero_and_rises_again():
    steered = controller()
    assert after(steered, 0.9, 0.9, 0.0)[0] == 0.125
    assert after(steered, 0.9)[0] == 0.0  # 0.0625 is below the least
    assert after(steered, 0.4)[0] == 0.1
    assert after(steered, 0.4, 0.4, 0.4, 0.4)[0] == 1.0


def test_the_smoothed_signal_counts():
    # 0.4, then 0.5 * 0.4 + 0.5 * 0.76 = 0.58 is inside, 0.62 of a last 0.66 is 0.02 of 0.1 beyond.
    assert after(controller(memory=0.5), 0.76, 0.66)[0] == pytest.approx(0.9)


def test_after_a_rollback_it_never_rises_to_what_it_was():
    steered = controller()
    steered.shrink(0.25)
    assert after(steered, 0.4, 0.4, 0.4)[0] == 0.25
    steered.shrink(0.0)
    assert after(steered, 0.4, 0.4)[0] == 0.0


def test_the_first_values_are_what_it_is_compared_with():
    steered = controller(baseline_rollouts=3)  # has seen 0.4
    assert after(steered, 0.9, 0.8) == (1.0, [None, None])
    # Their mean is 0.7, of which 0.45 is 0.05 of 0.1 beyond.
    assert after(steered, 0.9, 0.45)[0] == pytest.approx(0.75)


def test_a_row_without_the_signal_moves_nothing():
    steered = controller()
    after(steered, 0.9)
    assert steered.update({}) is None
    assert steered.factor == 0.5


def test_continued_from_its_state_it_does_the_same():
    values = [0.3, 0.7, 0.9, 0.5, 0.5, 0.1, 0.3, 0.4]
    whole, factors = controller(memory=0.5), []
    for value in values:
        factors.append(after(whole, value)[0])
    for cut in range(len(values)):
        first, second = controller(memory=0.5), controller(memory=0.5)
        after(first, *values[:cut])
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert [after(second, value)[0] for value in values[cut:]] == factors[cut:]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"memory": 1.0}, "memory"),
        ({"fall": 1.5}, "fall"),
        ({"rise": 0.9}, "rise"),
        ({"least": 1.0}, "least"),
        ({"signals": {"x": {"columns": ["a"], "width": 1.0}}}, "below or above"),
        ({"signals": {"x": {"columns": ["a"], "below": 0.0, "width": 1}}}, "below is positive"),
        ({"signals": {"x": {"columns": ["a"], "below": 1, "width": 0}}}, "width is positive"),
    ],
    ids=str,
)
def test_impossible_numbers_are_refused(changes, says):
    given = {
        "signals": {},
        "baseline_rollouts": 1,
        "memory": 0.5,
        "fall": 0.5,
        "rise": 1.0,
        "least": 0.1,
    }
    with pytest.raises(ValueError, match=says):
        Controller(**{**given, **changes})


def test_of_a_logarithm_ratios_count():
    held = Held(columns=("policy/sampled_masked_entropy",), above=0.5, width=0.5, logarithm=True)
    # log 2 = 0.693 is 0.193 of 0.5 beyond, from wherever the run began.
    assert [
        held.excess(held.read({"policy/sampled_masked_entropy": 2 * began}) - math.log(began))
        for began in (0.2, 3.0)
    ] == pytest.approx([0.3862943611] * 2)
