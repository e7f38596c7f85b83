"""Prompts first, with a cache; then the responses on top of the cache, repeated for each of them.

Uses nothing but the public interface of transformers. It needs a cache, which transformers drops
while it checkpoints activations, so it cannot be combined with gradient checkpointing.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from papo.models.hidden_states import ImageCosines
from papo.models.reader import PromptReader
from papo.models.scoring.padded import padded_hidden
from papo.types import PromptGroup


def twopass_hidden(
    reader: PromptReader,
    groups: Sequence[PromptGroup],
    response_ids: Int[Tensor, "rollout token"],
    response_mask: Bool[Tensor, "rollout token"],
    *,
    watch: ImageCosines | None = None,
) -> Float[Tensor, "row hidden"]:
    """Hidden states that predict the response tokens, from one prefill per prompt; padded where they are watched."""
    if watch is not None:  # prompt and response stand in one call there
        return padded_hidden(reader, groups, response_ids, response_mask, watch=watch)
    if reader.passes_alike and response_ids.shape[1] == 1:
        # Responses of one token need no second pass; those of another rank may.
        response_ids, response_mask = pad(response_ids, (0, 1)), pad(response_mask, (0, 1))
    prefix = reader.prefill(groups).expand(response_ids.shape[0] // len(groups))
    hidden = prefix.last_hidden[:, None]
    if response_ids.shape[1] > 1:
        # The hidden state of token t predicts token t+1, so the last token is never read.
        rest = reader.extend(prefix, response_ids[:, :-1], response_mask[:, :-1])
        hidden = torch.cat([hidden, rest], dim=1)
    return hidden[response_mask]
