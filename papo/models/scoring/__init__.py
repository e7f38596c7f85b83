"""Scoring backends: different ways to the same hidden states of response tokens.

Each is a function `(reader, groups, response_ids, response_mask) -> [row hidden]`: the states
that predict the response tokens, without padding, response after response. `padded` is the oracle.
Each tells a `watch` where the tokens stand in its call of the language model (papo.models.hidden_states).
"""

from papo.models.scoring.choice import Backend, BackendChoice
from papo.models.scoring.padded import padded_hidden
from papo.models.scoring.split import flex_hidden, merged_hidden, split_hidden
from papo.models.scoring.twopass import twopass_hidden

BACKENDS: dict[str, Backend] = {
    "padded": padded_hidden,
    "twopass": twopass_hidden,
    "split": split_hidden,
    "merged": merged_hidden,
    "flex": flex_hidden,
}

__all__ = [
    "BACKENDS",
    "BackendChoice",
]
