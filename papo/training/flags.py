"""From the characters of a response that a reward calls false to its tokens."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from papo.training.token_texts import token_texts
from papo.types import Responses, Rewards


def flagged_tokens(
    tokenizer: Any, responses: Responses, rewards: Rewards
) -> Bool[Tensor, "rollout token"]:
    """Returns True at the tokens that write any part of what the reward calls false.

    Args:
        tokenizer: of the policy.
        responses: with their texts.
        rewards: of them.

    Raises:
        ValueError: the reward says nothing of claims.
    """
    if rewards.flawed is None:
        raise ValueError(
            "the objective needs the claims that are false, and the reward names none. Set reward=lab, or a reward "
            "whose Rewards.flawed has spans of characters."
        )
    flagged = torch.zeros_like(responses.mask)
    for row, spans in enumerate(rewards.flawed):
        if spans:
            ids = responses.ids[row][responses.mask[row]].tolist()
            found = in_spans(extents(tokenizer, ids, responses.texts[row]), spans)
            flagged[row, : len(ids)] = torch.tensor(found)
    return flagged


def extents(tokenizer: Any, ids: Sequence[int], text: str) -> list[tuple[int, int]]:
    """Where each token stands in the text; special ones, which the text leaves out, are empty.

    The text may begin with what the chat template wrote of the response.
    """
    special = set(tokenizer.all_special_ids)
    lengths = [
        0 if token in special else len(written)
        for token, written in zip(ids, token_texts(tokenizer, ids), strict=True)
    ]
    first = len(text) - len(tokenizer.decode(list(ids), skip_special_tokens=True))
    ends = [first + end for end in accumulate(lengths)]
    return [(end - length, end) for end, length in zip(ends, lengths, strict=True)]


def in_spans(extents: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[bool]:
    """Which extents, from a place up to another, share a place with one of the spans."""
    return [
        any(start < end and max(start, first) < min(end, last) for first, last in spans)
        for start, end in extents
    ]
