"""What is known of answers stays with its responses on the way to other ranks and through dynamic sampling."""

import torch

from papo.training.draft import Draft, DrawnPrompt, concatenate, from_plain, to_plain
from papo.types import Responses, Rewards


def draft(first, known, num_tokens):
    """Two prompts with two responses each."""
    mask = torch.ones(4, num_tokens, dtype=torch.bool)
    total = torch.arange(first, first + 4).float()
    return Draft(
        prompts=tuple(
            DrawnPrompt(
                position=first + index,
                round_index=0,
                index=index,
                num_tokens=3,
                changed={},
                has_picture=False,
                group=None,
            )
            for index in range(2)
        ),
        responses=Responses(
            ids=torch.zeros(4, num_tokens, dtype=torch.long),
            mask=mask,
            logprobs=torch.zeros(4, num_tokens),
            finished=mask[:, 0],
            texts=("a",) * 4,
        ),
        rewards=Rewards(total=total, correct=total > 1, known=known),
    )


def test_what_is_known_is_exchanged_put_together_and_selected():
    known = torch.tensor([True, True, False, False])
    parts = [draft(0, known, 2), draft(4, ~known, 3)]
    whole = concatenate([from_plain(to_plain(part)) for part in parts])
    assert whole.rewards.known.tolist() == [True, True, False, False, False, False, True, True]
    chosen = whole.select([3, 1])
    assert chosen.rewards.total.tolist() == [6, 7, 2, 3]
    assert chosen.rewards.known.tolist() == [True, True, False, False]


def test_where_all_is_known_nothing_is_said():
    whole = concatenate([draft(0, None, 2), draft(4, None, 3)])
    assert whole.rewards.known is None
    assert whole.select([1]).rewards.known is None
