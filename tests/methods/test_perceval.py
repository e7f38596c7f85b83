"""Perceval: tokens of false claims are worth less, right answer or wrong; the lab knows what was misread."""

import pytest
import torch
from method_rows import MASK, blocks_of, draw, make_batch

from papo.lab.grading import LabReward, misread_spans, write_response
from papo.methods import Perceval
from papo.objective import ClippedSurrogate, Objective, SettingError
from papo.training.flags import extents, flagged_tokens, in_spans
from papo.types import Problem, Responses, Rewards

FLAGGED = (draw(9) > 0.6) & MASK


def given(penalty=0.1):
    batch = make_batch(flagged=FLAGGED)
    return batch, Perceval(penalty=penalty)(batch, blocks_of(batch), progress=0.0)


def test_matches_the_definition():
    batch, got = given()
    for row in range(batch.num_rollouts):
        for token in range(int(MASK[row].sum())):
            before = float(batch.advantages[row, token])
            lost = 0.1 * abs(before) if FLAGGED[row, token] else 0.0
            assert float(got[row, token]) == pytest.approx(before - lost, abs=1e-12)


def test_by_hand_and_downwards_whatever_the_sign():
    batch, got = given(penalty=0.25)
    assert set(got[FLAGGED & (batch.advantages > 0)].tolist()) == {0.75}
    assert set(got[FLAGGED & (batch.advantages < 0)].tolist()) == {-1.25}
    assert torch.equal(got[~FLAGGED], batch.advantages[~FLAGGED])


def test_without_a_judge_the_objective_does_not_guess():
    surrogate = ClippedSurrogate(
        weight=1.0, clip_low=0.2, clip_high=0.2, dual_clip=None, log_ratio_max=None
    )
    objective = Objective(
        terms={"surrogate": surrogate},
        credits={"perceval": Perceval(penalty=0.1)},
        count_epsilon=0.0,
    )
    assert objective.needs.flagged
    batch = make_batch()
    with pytest.raises(ValueError, match=r"'perceval' lacks.*calls false"):
        objective.credit(batch, blocks_of(batch), progress=0.0)


@pytest.mark.parametrize("penalty", [0.0, -0.1, float("inf")])
def test_an_impossible_penalty_is_refused(penalty):
    with pytest.raises(SettingError, match="penalty is a share"):
        Perceval(penalty=penalty)


def test_a_token_is_flagged_where_any_of_its_characters_is():
    tokens = [(0, 2), (2, 2), (2, 5), (5, 9)]
    assert in_spans(tokens, [(1, 3)]) == [True, False, True, False]
    assert in_spans(tokens, [(4, 4)]) == [False] * 4
    assert in_spans(tokens, [(5, 99), (0, 1)]) == [True, False, False, True]
    assert in_spans(tokens, []) == [False] * 4


@pytest.fixture(scope="module")
def operation():
    from papo.lab.shapes import SHAPES

    return next(iter(next(iter(SHAPES.values())).operations))


def test_the_lab_names_the_readings_that_are_wrong(operation):
    from papo.lab.shapes import results, shape_of

    sides = shape_of(operation).sides
    numbers = dict(zip(sides, (7, 5, 3, 2), strict=False))
    truth = {"operation": operation, **numbers}
    truth["result"] = results(operation, *numbers.values())[-1]
    right = write_response(operation, *numbers.values())
    assert misread_spans(truth, right) == ()
    wrong = "  " + write_response(operation, *(n + (s == sides[1]) for s, n in numbers.items()))
    [(start, end)] = misread_spans(truth, wrong)
    assert wrong[start:end] == f"{sides[1]} = {numbers[sides[1]] + 1}"
    assert misread_spans(truth, "nothing of the grammar") == ()
    lab = Problem(id="1", question="?", answer="1", images=(), source="lab", truth=truth)
    rewards = LabReward()([lab, lab], [right, wrong])
    assert rewards.flawed == ((), ((start, end),))


class WordTokenizer:
    """Words with their leading space; 9 is special."""

    words = (" a", " =", " 8", " ,", " b", " 5")
    all_special_ids = (9,)

    def decode(self, ids, skip_special_tokens=False):
        return "".join(
            "<end>" if i == 9 else self.words[i] for i in ids if i != 9 or not skip_special_tokens
        )


def responses_of(ids, text):
    mask = torch.ones(1, len(ids), dtype=torch.bool)
    return Responses(
        ids=torch.tensor([ids]),
        mask=mask,
        logprobs=torch.zeros(1, len(ids)),
        finished=torch.tensor([True]),
        texts=(text,),
    )


def test_characters_become_tokens_behind_what_the_template_wrote():
    ids, text = [0, 1, 2, 3, 4, 1, 5, 9], "<think> a = 8 , b = 5"
    assert extents(WordTokenizer(), ids, text)[:3] == [(7, 9), (9, 11), (11, 13)]
    assert extents(WordTokenizer(), ids, text)[-1] == (len(text), len(text))
    span = (text.index("a"), text.index(" ,"))
    one = torch.ones(1)
    rewards = Rewards(total=one, correct=one.bool(), flawed=((span,),))
    flagged = flagged_tokens(WordTokenizer(), responses_of(ids, text), rewards)
    assert flagged.tolist() == [[True, True, True, False, False, False, False, False]]


def test_a_reward_without_claims_is_refused_by_name():
    one = torch.ones(1)
    with pytest.raises(ValueError, match="Set reward=lab"):
        flagged_tokens(
            WordTokenizer(), responses_of([0], " a"), Rewards(total=one, correct=one.bool())
        )
