import pytest
import torch

from papo.rewards import PartlyLabelled
from papo.types import Problem, Rewards


def problems(count):
    return [
        Problem(id=f"p{i}", question="?", answer="1", images=(), source="test")
        for i in range(count)
    ]


class OneForRight:
    closed = False

    def __call__(self, problems, texts):
        correct = torch.tensor(
            [text == problem.answer for problem, text in zip(problems, texts, strict=True)]
        )
        return Rewards(
            total=correct.float(),
            correct=correct,
            components={"accuracy": correct.float()},
            timeouts=3,
        )

    def close(self):
        self.closed = True


def test_only_labelled_problems_earn_and_the_metrics_keep_the_truth():
    items = problems(400)
    reward = PartlyLabelled(reward=OneForRight(), labelled_share=0.25)
    rewards = reward(items, ["1", "2"] * 200)
    labelled = rewards.components["labelled"].bool()
    assert 60 < labelled.sum() < 140
    assert torch.equal(rewards.total.bool(), rewards.correct & labelled)
    assert rewards.correct.sum() == 200
    assert torch.equal(rewards.known, labelled)
    assert rewards.components["accuracy"].sum() == 200
    assert rewards.timeouts == 3


def test_responses_to_one_problem_are_labelled_alike_wherever_they_stand():
    reward = PartlyLabelled(reward=OneForRight(), labelled_share=0.5)
    first, second = problems(2)
    together = reward([first] * 3 + [second] * 3, ["1"] * 6).components["labelled"].tolist()
    assert (
        together == [float(reward.is_labelled(first))] * 3 + [float(reward.is_labelled(second))] * 3
    )


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1.0, 50)])
def test_none_and_all_can_be_labelled(share, expected):
    reward = PartlyLabelled(reward=OneForRight(), labelled_share=share)
    assert reward(problems(50), ["1"] * 50).total.sum() == expected


def test_a_larger_share_labels_what_a_smaller_one_did():
    few, many = (
        {
            p.id
            for p in problems(300)
            if PartlyLabelled(reward=OneForRight(), labelled_share=s).is_labelled(p)
        }
        for s in (0.1, 0.4)
    )
    assert few < many


def test_closing_reaches_the_reward_inside():
    inner = OneForRight()
    PartlyLabelled(reward=inner, labelled_share=0.5).close()
    assert inner.closed


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match=r"reward\.labelled_share"):
        PartlyLabelled(reward=OneForRight(), labelled_share=share)
