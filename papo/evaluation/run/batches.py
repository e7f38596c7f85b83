"""Which problems are sampled together: consecutive ones, as many as a budget of tokens allows."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from papo.storage.provenance import image_hash
from papo.types import PromptGroup
from papo.views import Item


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shown:
    """One problem in one view.

    Attributes:
        index: of the problem in its benchmark.
        item: None where it could not be read, or is left out of the view.
        prompts: what is sampled from; empty where the problem is left out of the view.
    """

    index: int
    item: Item | None
    prompts: tuple[PromptGroup, ...]


def cut_batches(
    shown: Iterable[Shown], *, num_responses: int, max_response_tokens: int, tokens_per_batch: int
) -> Iterator[list[Shown]]:
    """Yields consecutive problems whose rows, padded to the longest, stay within the budget.

    A function of what follows a batch alone, never of what came before it: a continued run cuts the
    rest like the uninterrupted one. One problem is never cut, even above the budget.
    """
    batch: list[Shown] = []
    longest = rows = 0
    for one in shown:
        length = max((prompt.prompt_ids.shape[0] for prompt in one.prompts), default=0)
        new_rows = num_responses if one.prompts else 0
        tokens = (rows + new_rows) * (max(longest, length) + max_response_tokens)
        if batch and tokens > tokens_per_batch:
            yield batch
            batch, longest, rows = [], 0, 0
        batch.append(one)
        longest, rows = max(longest, length), rows + new_rows
    if batch:
        yield batch


def content_of_batch(batch: Sequence[Shown]) -> str:
    """Returns a hash of what a batch asks: the problems with their pictures, and the prompts made of them."""
    digest = hashlib.sha256()
    for one in batch:
        digest.update(f"{one.index}".encode())
        if one.item is not None:
            problem = one.item.problem
            asked = [problem.id, problem.question, problem.answer, *map(image_hash, problem.images)]
            digest.update(json.dumps(asked).encode())
        for prompt in one.prompts:
            digest.update(json.dumps(prompt.prompt_ids.tolist()).encode())
    return f"problems {batch[0].index} to {batch[-1].index}, {digest.hexdigest()[:16]}"
