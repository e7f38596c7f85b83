"""What a rollout policy is asked beyond the log-probs of sampled tokens: whole distributions, without gradient.

And what is read of hidden states on the way (papo.models.hidden_states).
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from papo.functional import distributions
from papo.models.response_rows import at_tokens
from papo.types import IMAGE, Quantity, ViewScores

Distribution = Float[Tensor, "row vocab"]

# Of the distribution given a view and that given the image.
MEASURES: Mapping[str, Callable[[Distribution, Distribution], Float[Tensor, " row"]]] = {
    "entropy": lambda log_q, log_p: distributions.entropy(log_q),
    "nucleus_entropy": lambda log_q, log_p: distributions.nucleus_entropy(log_q),
    "kl_from_image": lambda log_q, log_p: distributions.kl_divergence(log_p, log_q),
    "jsd_from_image": lambda log_q, log_p: distributions.jensen_shannon_divergence(log_p, log_q),
}


def views_to_read(wanted: Collection[tuple[str, Quantity]]) -> tuple[str, ...]:
    """The views of which a pass is made: those named, and the image where one is compared with it."""
    compares = any(quantity.endswith("_from_image") for _, quantity in wanted)
    views = {view for view, _ in wanted}
    return tuple(sorted(views | {IMAGE} if compares else views))


@torch.no_grad()
def measured(
    hidden: Mapping[str, Float[Tensor, "row hidden"]],
    of_states: Mapping[str, Mapping[Quantity, Float[Tensor, " row"]]],
    target_ids: Int[Tensor, " row"],
    response_mask: Bool[Tensor, "rollout token"],
    *,
    wanted: Collection[tuple[str, Quantity]],
    next_token_logprobs: Callable[[Tensor], Distribution],
    chunk_size: int,
) -> dict[str, ViewScores]:
    """Returns what is wanted of each view, 0.0 at padding; `chunk_size` rows of each distribution exist at once.

    Args:
        hidden: of each view, the states that predict the response tokens.
        of_states: of each view, what was read of hidden states.
        target_ids: these tokens.
        response_mask: where they stand.
        wanted: (view, quantity); log-probs of the tokens come with every view that is read.
        next_token_logprobs: distributions of states.
        chunk_size: rows.
    """
    asked = {view: [q for v, q in wanted if v == view and q in MEASURES] for view in hidden}
    found: dict[str, dict[str, list[Tensor]]] = {
        view: {quantity: [] for quantity in ("logprobs", *quantities)}
        for view, quantities in asked.items()
    }
    for rows in _chunks(len(target_ids), chunk_size):
        log_p = next_token_logprobs(hidden[IMAGE][rows]) if IMAGE in hidden else None
        for view, quantities in asked.items():
            log_q = (
                next_token_logprobs(hidden[view][rows]) if log_p is None or view != IMAGE else log_p
            )
            found[view]["logprobs"].append(log_q.gather(1, target_ids[rows, None])[:, 0])
            for quantity in quantities:
                found[view][quantity].append(
                    MEASURES[quantity](log_q, log_q if log_p is None else log_p)
                )

    def padded(parts: list[Tensor]) -> Tensor:
        return at_tokens(torch.cat(parts), response_mask)

    fields: Any = {
        view: {quantity: padded(parts) for quantity, parts in quantities.items()}
        | {quantity: padded([values]) for quantity, values in of_states[view].items()}
        for view, quantities in found.items()
    }
    return {view: ViewScores(**quantities) for view, quantities in fields.items()}


def _chunks(num_rows: int, chunk_size: int) -> Iterator[slice]:
    for start in range(0, max(num_rows, 1), chunk_size):
        yield slice(start, start + chunk_size)
