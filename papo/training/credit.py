"""What is decided over the responses of all ranks: each gets its own tokens' share of the whole rollout's."""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from papo.objective import Blocks, credit_metrics
from papo.parallel import Ranks
from papo.types import RolloutBatch, ViewScores

CreditRule = Callable[..., RolloutBatch]


def credited(
    own: RolloutBatch,
    places: Sequence[int],
    *,
    credit: CreditRule,
    blocks: Blocks,
    ranks: Ranks,
    progress: float,
) -> tuple[RolloutBatch, dict[str, float]]:
    """Returns this rank's batch with what its tokens get, advantages and weights of terms, and metrics of the
    whole rollout.

    Args:
        own: scored, with the advantage of a response at each of its tokens.
        places: of its groups in the rollout.
        credit: `papo.objective.Objective.credit`.
        blocks: of the whole rollout.
        ranks: all take part.
        progress: share of the run that is done, 0 to 1.
    """
    # On the CPU: so every rank finds the same, whatever it computes on.
    plain: dict[str, Any] = {
        "places": list(places),
        "fields": _rowwise(own),
        "views": _plain_views(own),
    }
    parts = ranks.gather(plain)
    order = [place for part in parts for place in part["places"]]
    size = own.num_responses

    def in_order(values: list[Tensor]) -> Tensor:
        groups = torch.cat([each.reshape(-1, size, *each.shape[1:]) for each in values])
        return groups[torch.tensor(order).argsort()].flatten(0, 1)

    def each(read: Callable[[Any], Any]) -> Any:
        return {name: in_order([read(part)[name] for part in parts]) for name in read(plain)}

    def seen(view: str) -> ViewScores:
        return ViewScores(**each(lambda part: part["views"][view]))

    views = {view: seen(view) for view in own.old_views}
    whole = replace(own, groups=(), old_views=views, **each(lambda part: part["fields"]))
    given = credit(whole, blocks, progress=progress)

    def mine(values: Tensor) -> Tensor:
        return (
            values.reshape(-1, size, values.shape[1])[list(places)].flatten(0, 1).to(own.advantages)
        )

    weights = {name: mine(values) for name, values in given.term_weights.items()}
    moved = {} if given.advantages is whole.advantages else credit_metrics(whole, given)
    return replace(own, advantages=mine(given.advantages), term_weights=weights), moved


def _rowwise(batch: RolloutBatch) -> dict[str, Tensor]:
    return {
        field.name: value.cpu()
        for field in fields(batch)
        if isinstance(value := getattr(batch, field.name), Tensor)
    }


def _plain_views(batch: RolloutBatch) -> dict[str, dict[str, Tensor]]:
    return {
        view: {
            field.name: value.cpu()
            for field in fields(scores)
            if (value := getattr(scores, field.name)) is not None
        }
        for view, scores in batch.old_views.items()
    }
