"""The text that each token of a response adds."""

from collections.abc import Sequence
from typing import Any

# What a decoder puts where the bytes of a character are not all there yet.
_INCOMPLETE = "\ufffd"


def token_texts(tokenizer: Any, token_ids: Sequence[int]) -> list[str]:
    """Returns one text per token, special tokens included; joined they are the decoded response.

    A character whose bytes are spread over several tokens belongs to the last of them, the others
    are empty.
    """
    texts: list[str] = []
    # A token's text may depend on its neighbour (spaces), never on more than the complete text
    # before it, so a short window is decoded instead of the whole response.
    start = complete = 0
    for end in range(1, len(token_ids) + 1):
        before = tokenizer.decode(token_ids[start:complete])
        text = tokenizer.decode(token_ids[start:end])[len(before) :]
        if text.endswith(_INCOMPLETE) and end < len(token_ids):
            texts.append("")
            continue
        texts.append(text)
        start, complete = complete, end
    return texts
