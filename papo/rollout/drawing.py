"""Drawing the next token: from all of them, from the k most likely, from the nucleus.

Sorting a vocabulary of 150,000 per token costs more than the nucleus needs: it nearly always lies among
the few hundred most likely tokens, and whether it does is known from these alone.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

HEAD_TOKENS = 1024
"""So many of the most likely tokens are sorted, where the vocabulary is much larger."""

# Below so many times the head the whole vocabulary is sorted.
_MUCH_LARGER = 4

_ROUNDING = 1e-9


def draw_tokens(
    logprobs: Float[Tensor, "row vocab"],
    draws: Float[Tensor, " row"],
    top_p: float,
    top_k: int | None = None,
) -> Int[Tensor, " row"]:
    """Inverse-CDF sampling from the `top_k` most likely tokens, and of these from the top-p nucleus.

    The nucleus is the smallest set of most likely tokens whose probability reaches `top_p`
    (arXiv:1904.09751, section 3.1), renormalised over the top k as vLLM and transformers do; `draws`
    are uniform on [0, 1). Of equally likely tokens the one with the smaller id comes first.
    """
    tokens, certain = draw_from_head(logprobs, draws, top_p, top_k)
    if certain is None or bool(certain):
        return tokens
    return draw_from_sorted(logprobs, draws, top_p, top_k)


def draw_from_head(
    logprobs: Float[Tensor, "row vocab"],
    draws: Float[Tensor, " row"],
    top_p: float,
    top_k: int | None,
) -> tuple[Int[Tensor, " row"], Bool[Tensor, ""] | None]:
    """The tokens of `draw_tokens`, and whether they are; None where they always are.

    Reads nothing back from the device: the caller asks when it has other questions to ask.
    """
    if top_p == 1 and top_k is None:
        # Everything is in the nucleus, and any order of the tokens gives the same distribution.
        cumulative = logprobs.exp().cumsum(dim=-1, dtype=torch.float64)
        return _invert(cumulative, draws), None
    # One more than the k most likely says whether the last of them has an equal outside.
    head = HEAD_TOKENS if top_k is None else top_k + 1
    if logprobs.shape[1] < _MUCH_LARGER * head:
        return draw_from_sorted(logprobs, draws, top_p, top_k), None
    probabilities, order = logprobs.exp().topk(head, dim=-1)
    # topk leaves open which of equal ones comes first: by id, then by probability without changing that.
    order, by_id = order.sort(dim=-1)
    probabilities, ranks = probabilities.gather(1, by_id).sort(dim=-1, descending=True, stable=True)
    order = order.gather(1, ranks)
    tokens, in_nucleus, reached = _draw(probabilities[:, :top_k], order, draws, top_p, top_k)
    last = probabilities[:, -1:]
    if top_k is not None:
        certain = probabilities[:, top_k - 1 : top_k] > last
    else:
        # Others may equal the last one, and which of them come first is known to nobody here.
        borderline = (in_nucleus & (probabilities == last)).any(dim=-1, keepdim=True)
        # Behind the head a sum may still round to just below top_p.
        certain = ~borderline & (reached > top_p + _ROUNDING)
    # Tokens of probability 0 are never drawn, whichever they are.
    return tokens, (certain | (last == 0)).all()


def draw_from_sorted(
    logprobs: Float[Tensor, "row vocab"],
    draws: Float[Tensor, " row"],
    top_p: float,
    top_k: int | None,
) -> Int[Tensor, " row"]:
    """The tokens of `draw_tokens`, from the whole vocabulary in order."""
    if top_p == 1 and top_k is None:
        return draw_from_head(logprobs, draws, top_p, top_k)[0]
    probabilities, order = logprobs.exp().sort(dim=-1, descending=True, stable=True)
    return _draw(probabilities[:, :top_k], order, draws, top_p, top_k)[0]


def _draw(
    probabilities: Float[Tensor, "row rank"],
    order: Int[Tensor, "row token"],
    draws: Float[Tensor, " row"],
    top_p: float,
    top_k: int | None,
) -> tuple[Int[Tensor, " row"], Bool[Tensor, "row rank"], Float[Tensor, "row 1"]]:
    """Draws a rank from probabilities in falling order, and names its token.

    Returns also which ranks are in the nucleus, and the probability of all of them together.
    """
    probabilities = probabilities.double()
    if top_k is not None:
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
    cumulative = probabilities.cumsum(dim=-1)
    # A token belongs to the nucleus when what comes before it does not reach top_p yet.
    in_nucleus = (cumulative - probabilities) < top_p
    in_nucleus &= probabilities > 0
    in_nucleus[:, 0] = True
    # Beyond the nucleus nothing is added, so nothing there is ever drawn.
    chosen = _invert(torch.where(in_nucleus, probabilities, 0.0).cumsum(dim=-1), draws)
    return order.gather(1, chosen[:, None])[:, 0], in_nucleus, cumulative[:, -1:]


def _invert(
    cumulative: Float[Tensor, "row vocab"], draws: Float[Tensor, " row"]
) -> Int[Tensor, " row"]:
    """The first token at which the cumulative weight passes `draws` times the total.

    A token of weight 0 repeats the value before it, so it is never the first to pass.
    """
    total = cumulative[:, -1:]
    # draws < 1, but its product with the total can round to the total itself.
    target = torch.minimum(
        draws[:, None].double() * total, total.nextafter(torch.zeros_like(total))
    )
    chosen = torch.searchsorted(cumulative, target, right=True)[:, 0]
    # NaN passes nowhere; such a policy is stopped by its loss, which says more than an index error.
    return chosen.clamp(max=cumulative.shape[1] - 1)
