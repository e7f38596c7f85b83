"""A reward of one's own: what is said of each response, in their order. Responses are text to parse, never to run."""

from collections.abc import Sequence

import torch

from papo.types import Problem, Rewards


class ShortAnswer:
    """1 where the answer is among the words of the response, and a little for few words.

    Args:
        brevity_weight: of the part that is 1 without a word and 0 from `max_words` on.
        max_words: from here on a response is long.
    """

    def __init__(self, *, brevity_weight: float, max_words: int) -> None:
        self.brevity_weight, self.max_words = brevity_weight, max_words

    def __call__(self, problems: Sequence[Problem], texts: Sequence[str]) -> Rewards:
        words = [text.split() for text in texts]
        correct = torch.tensor(
            [one.answer in said for one, said in zip(problems, words, strict=True)]
        )
        lengths = torch.tensor([float(len(said)) for said in words])
        brevity = (1 - lengths / self.max_words).clamp(min=0)
        return Rewards(
            total=correct.float() + self.brevity_weight * brevity,
            correct=correct,
            components={"accuracy": correct.float(), "brevity": brevity},
        )
