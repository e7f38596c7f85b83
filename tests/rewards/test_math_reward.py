from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from papo.rewards import MathReward
from papo.rewards.grader_names import GRADER_NAMES
from papo.rewards.graders import GRADERS
from papo.rewards.grading_pool import Verdict
from papo.types import Problem

CONF = Path(__file__).parents[2] / "conf/reward"


def make_reward(**changes):
    settings = {
        "grader": "mathruler",
        "accuracy_weight": 0.9,
        "format_weight": 0.1,
        "deadline_seconds": 1.0,
        "num_workers": 1,
    }
    return MathReward(**{**settings, **changes})


@pytest.fixture(scope="module")
def reward():
    reward = make_reward()
    yield reward
    reward.close()


def problems(*answers):
    return [
        Problem(id=str(i), question="?", answer=answer, images=(), source="test")
        for i, answer in enumerate(answers)
    ]


def test_right_and_formatted_earns_one_and_each_part_its_weight(reward):
    texts = [
        "<think>a</think> \\boxed{4}",  # both
        "\\boxed{4}",  # right only
        "<think>a</think> \\boxed{5}",  # formatted only
        "4",  # neither
        "",
    ]
    got = reward(problems(*["4"] * 5), texts)
    torch.testing.assert_close(got.total, torch.tensor([1.0, 0.9, 0.1, 0.0, 0.0]))
    assert got.correct.tolist() == [True, True, False, False, False]
    assert got.components["accuracy"].tolist() == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert got.components["format"].tolist() == [1.0, 0.0, 1.0, 0.0, 0.0]
    assert got.timeouts == 0


def test_no_response_is_no_reward(reward):
    assert reward([], []).total.shape == (0,)


def test_tags_written_with_spaces_count_as_tags(reward):
    got = reward(problems("4"), ["< think >a< / think > \\boxed{4}"])
    assert got.total.tolist() == [1.0]


def test_a_missing_box_does_not_equal_the_reference_none(reward):
    got = reward(problems("None", "None"), ["no box", "\\boxed{None}"])
    assert got.correct.tolist() == [False, True]


def test_an_open_last_box_is_not_replaced_by_an_earlier_one(reward):
    assert not reward(problems("3"), ["\\boxed{3} and \\boxed{4"]).correct.any()


def test_a_box_longer_than_any_answer_is_wrong_unread(reward):
    longest, longer = "1" * 1_000, "1" * 1_001
    got = reward(problems(longest, longer), [f"\\boxed{{{longest}}}", f"\\boxed{{{longer}}}"])
    assert got.correct.tolist() == [True, False]


def test_every_response_to_a_stuck_grading_is_wrong_and_counted():
    reward = make_reward(grader="math_verify", deadline_seconds=0.5)
    stuck = "\\boxed{(x+y)^{9999}}"
    got = reward(problems("x+1", "x+1", "2"), [stuck, stuck, "\\boxed{2}"])
    reward.close()
    assert got.correct.tolist() == [False, False, True]
    assert got.timeouts == 2


def test_gradings_that_crashed_are_wrong_and_counted_with_those_out_of_time(reward, monkeypatch):
    verdicts = {"2": Verdict.CRASH, "3": Verdict.TIMEOUT, "4": Verdict.CORRECT}
    monkeypatch.setattr(
        reward._pool, "grade", lambda gradings: [verdicts[one.answer] for one in gradings]
    )
    got = reward(problems("4", "4", "4"), ["\\boxed{2}", "\\boxed{3}", "\\boxed{4}"])
    assert got.correct.tolist() == [False, False, True]
    assert got.timeouts == 2


def test_a_response_of_a_million_characters_is_graded(reward):
    text = "<think>" + "{ \\boxed{" * 100_000 + "</think> \\boxed{4}"
    assert reward(problems("4"), [text]).total.tolist() == [1.0]


def test_the_same_responses_earn_the_same_in_any_order(reward):
    answers, texts = ["4", "0.5", "9"], ["\\boxed{4}", "\\boxed{1/2}", "\\boxed{8}"]
    forward = reward(problems(*answers), texts).total
    backward = reward(problems(*answers[::-1]), texts[::-1]).total
    assert forward.tolist() == backward.tolist()[::-1]


def test_the_grader_is_a_setting():
    reward = make_reward(grader="combined")
    got = reward(problems("B", "4"), ["\\boxed{(B) 12}", "\\boxed {4}"])
    reward.close()
    assert got.correct.tolist() == [True, True]


def test_a_template_that_opens_the_thinking_is_a_setting():
    reward = make_reward(format_rule="close_think_then_box")
    got = reward(problems("4"), ["a</think> \\boxed{4}"])
    reward.close()
    assert got.total.tolist() == [1.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grader": "llm"}, "reward.grader"),
        ({"format_rule": "none"}, "reward.format_rule"),
        ({"format_weight": -0.1}, "reward.format_weight"),
        ({"accuracy_weight": float("nan")}, "reward.accuracy_weight"),
        ({"num_workers": 0}, "reward.num_workers"),
        ({"deadline_seconds": -1.0}, "reward.deadline_seconds"),
    ],
)
def test_a_wrong_setting_names_its_key(changes, message):
    with pytest.raises(ValueError, match=message):
        make_reward(**changes)


def test_one_response_per_problem(reward):
    with pytest.raises(ValueError, match="1 problems and 2 responses"):
        reward(problems("4"), ["a", "b"])


@pytest.mark.parametrize(
    ("name", "format_rule"),
    [("math", "think_then_box"), ("math_thinking", "close_think_then_box")],
)
def test_the_published_settings_compose_and_build(name, format_rule):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(name, overrides=["grader=combined"])
    assert (config.accuracy_weight, config.format_weight) == (0.9, 0.1)
    assert (config.grader, config.format_rule) == ("combined", format_rule)
    assert isinstance(instantiate(config), MathReward)


def test_every_name_has_its_grader():
    assert tuple(GRADERS) == GRADER_NAMES
