"""Evidence-RL: a right answer earns as far as it rests on the evidence, beyond what any hidden part costs."""

import math
import statistics

import pytest
import torch
from method_rows import MASK, blocks_of, draw, logprobs, make_batch

from papo.functional import evidence_gate, evidence_margin
from papo.methods import EvidenceRL
from papo.objective import SettingError
from papo.types import ViewScores

CONTROLS = ["control_0", "control_1", "control_2"]
SETTINGS = {
    "evidence": "evidence",
    "controls": CONTROLS,
    "temperature": 0.2,
    "weight": 0.1,
    "wrong": -0.25,
    "epsilon": 1e-6,
}


def credit(**settings):
    return EvidenceRL(**{**SETTINGS, **settings})


def views():
    """Views that are near the image's log-probs, so that margins do not all saturate."""
    return {
        name: ViewScores(logprobs=logprobs(1) - draw(seed, low=-0.2, high=0.4))
        for seed, name in enumerate(("evidence", *CONTROLS), start=20)
    }


def naive(batch, routed=True, relative=True):
    earned = []
    for row, length in enumerate(MASK.sum(1).tolist()):
        drop = {
            name: statistics.mean((batch.old_logprobs - seen.logprobs)[row, :length].tolist())
            for name, seen in batch.old_views.items()
        }
        beside = [drop[name] for name in CONTROLS]
        margin = drop["evidence"] - statistics.mean(beside)
        if relative:
            margin = math.tanh(margin / (statistics.pstdev(beside) + 1e-6))
        verdict = 1.0 if batch.correct[row] else -0.25
        gate = (1 + math.tanh(margin / 0.2)) / 2 if routed else 1.0
        earned.append(verdict * gate + 0.1 * margin)
    found = []
    for first in range(0, len(earned), batch.num_responses):
        group = earned[first : first + batch.num_responses]
        found += [(r - statistics.mean(group)) / (statistics.stdev(group) + 1e-6) for r in group]
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("settings", [{}, {"routed": False}, {"relative": False}])
def test_matches_the_definition(settings):
    batch = make_batch(views(), num_responses=4)
    got = credit(**settings)(batch, blocks_of(batch), progress=0.0)
    torch.testing.assert_close(got[:, 0], naive(batch, **settings), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got, got[:, :1] * MASK)


def test_by_hand():
    """Controls that cost 0 and 2: mean 1, deviation 1; evidence that costs 1 has margin 0, and the gate is half open."""
    one = torch.ones(1, dtype=torch.float64)
    margin = evidence_margin(one, torch.stack([0 * one, 2 * one]), relative=True)
    assert margin.item() == 0.0
    assert evidence_gate(margin, 0.2).item() == 0.5
    assert evidence_gate(margin, 0.0).item() == 0.0
    assert evidence_gate(one, 0.0).item() == 1.0
    none = one.new_zeros(0, 1)
    assert evidence_margin(one, none, relative=True).item() == pytest.approx(math.tanh(1))


def test_more_reliance_on_the_evidence_is_a_larger_advantage():
    seen = views()
    batch = make_batch(seen, num_responses=4, rewards=[1.0] * 8)
    before = credit()(batch, blocks_of(batch), progress=0.0)
    lower = seen["evidence"].logprobs.clone()
    lower[0] -= 0.3 * MASK[0]
    moved = make_batch({**seen, "evidence": lower}, num_responses=4, rewards=[1.0] * 8)
    after = credit()(moved, blocks_of(moved), progress=0.0)
    assert after[0, 0] > before[0, 0]
    assert torch.equal(after[4:], before[4:])


def test_without_a_known_answer_only_the_margin_is_compared():
    """The code's verdict None: r is 0, whatever the response is."""
    known = torch.tensor([False] * 4 + [True] * 4)
    batch = make_batch(views(), num_responses=4)
    hidden = make_batch(views(), num_responses=4, known=known)
    got = credit()(hidden, blocks_of(hidden), progress=0.0)
    margins = credit(wrong=0.0)(
        make_batch(views(), num_responses=4, rewards=[0.0] * 8), blocks_of(batch), progress=0.0
    )
    torch.testing.assert_close(got[:4], margins[:4])
    torch.testing.assert_close(got[4:], credit()(batch, blocks_of(batch), progress=0.0)[4:])


def test_it_asks_the_rollout_policy_once_for_every_view():
    needs = credit().needs
    assert needs.old_views == tuple(sorted(["evidence", *CONTROLS]))
    assert not needs.live_views


@pytest.mark.parametrize("name", ["temperature", "weight", "epsilon"])
def test_a_negative_number_is_refused(name):
    with pytest.raises(SettingError, match=f"{name} is at least 0; got -1"):
        credit(**{name: -1.0})
