"""The sequential test of a collapse: what it rings on, what it leaves alone, and that it continues exactly."""

import json
import math

import pytest

from papo.safeguard import CollapseDetector, Signal

FORM = "reward/error_format"


def detector(**changes) -> CollapseDetector:
    signals = {
        "badly formatted": Signal(columns=(FORM, "-reward/format"), allowance=1.0, floor=0.01)
    }
    return CollapseDetector(
        **{"signals": signals, "limit": 8.0, "baseline_rollouts": 4, "excess_cap": 5.0, **changes}
    )


def test_a_broken_form_rings_in_its_second_rollout():
    watch = detector()
    rang = [watch.update({FORM: 0.0}) for _ in range(10)] + [
        watch.update({FORM: 0.3}) for _ in range(2)
    ]
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
    watch = detector()
    for _ in range(50):
        assert watch.update(row) is None
    assert watch.statistics == {"badly formatted": 0.0}


def test_the_other_column_speaks_where_the_first_is_absent():
    one, other = detector(), detector()
    for share in (0.0, 0.01, 0.0, 0.0, 0.02, 0.04):
        one.update({FORM: share})
        other.update({"reward/format": 1 - share})
    assert one.statistics == pytest.approx(other.statistics)


def test_continued_from_its_state_it_says_the_same():
    shares = [0.0, 0.02, 0.01, 0.0, 0.01, 0.05, 0.0, 0.03, 0.2, 0.1, 0.3]
    whole = detector()
    expected = [whole.update({FORM: share}) for share in shares]
    for cut in range(len(shares)):
        first, second = detector(), detector()
        said = [first.update({FORM: share}) for share in shares[:cut]]
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert said + [second.update({FORM: share}) for share in shares[cut:]] == expected
