"""The idea of PAPO in one number per token: would this token have been written without the image?

With p = pi_theta(. | q, I) and q = pi_theta(. | q, I_mask), the perception KL is KL(p || q):
large where the answer depends on the image. PAPO maximises its mean (arXiv:2507.06448); nothing
bounds it from above, hence the restrictions below.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def most_dependent_tokens(
    token_kl: Float[Tensor, "rollout token"],
    mask: Bool[Tensor, "rollout token"],
    *,
    top_p: float,
) -> Bool[Tensor, "rollout token"]:
    """True at the `top_p` share of each response's tokens whose perception KL is largest.

    As the official code: kept are the tokens at or above the response's own (1 - top_p) quantile
    (linear interpolation), so at least one token of every response.
    """
    sampled = token_kl.detach().masked_fill(~mask, torch.nan)
    threshold = torch.nanquantile(sampled, 1 - top_p, dim=1, keepdim=True)
    return mask & (token_kl.detach() >= threshold)


def restricted_perception_kl(
    token_kl: Float[Tensor, "rollout token"],
    mask: Bool[Tensor, "rollout token"],
    *,
    counted: Bool[Tensor, " rollout"] | None,
    top_p: float | None,
    maximum: float | None,
) -> Float[Tensor, "rollout token"]:
    """Returns `token_kl` with 0.0 wherever it is not to count, and cut at `maximum`.

    What is left out is 0, not absent: averages still divide by all sampled tokens, so a
    restriction weakens the term instead of concentrating it. That is also how the official code
    averages.

    Args:
        token_kl: per-token perception KL, nats.
        mask: True where the policy sampled the token.
        counted: responses that count at all (gating by correctness); None for all.
        top_p: keep this share of each response's tokens; None for all.
        maximum: cut values here, nats; a cut token has no gradient. None for no cut.
    """
    kept = mask
    if counted is not None:
        kept = kept & counted[:, None]
    if top_p is not None:
        kept = kept & most_dependent_tokens(token_kl, mask, top_p=top_p)
    token_kl = token_kl.where(kept, 0.0)
    return token_kl if maximum is None else token_kl.clamp(max=maximum)
