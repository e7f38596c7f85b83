"""From one number per token to one number: the two averages of the objective, and clean padding.

Each average divides by a count the caller names, not by a count of its own input: a micro-batch
passes the counts of the minibatch it was cut from, and the parts sum to the whole.
"""

from jaxtyping import Bool, Float
from torch import Tensor


def zero_padding(
    values: Float[Tensor, "rollout token"], mask: Bool[Tensor, "rollout token"]
) -> Float[Tensor, "rollout token"]:
    """Returns `values` where `mask` is True and exactly 0.0 elsewhere.

    Selects, never multiplies: NaN * 0 is NaN. The gradient at padding is exactly 0.
    """
    return values.where(mask, 0.0)


def token_mean(
    values: Float[Tensor, "rollout token"],
    mask: Bool[Tensor, "rollout token"],
    *,
    num_tokens: int,
    count_epsilon: float,
) -> Float[Tensor, ""]:
    """sum of the masked-in values / num_tokens: every token weighs the same (DAPO, official PAPO).

    `num_tokens` counts the sampled tokens of the whole minibatch; `count_epsilon` is added to it
    (official code: 1e-8).
    """
    return zero_padding(values, mask).sum() / (num_tokens + count_epsilon)


def sequence_mean(
    values: Float[Tensor, "rollout token"],
    mask: Bool[Tensor, "rollout token"],
    *,
    num_rollouts: int,
    count_epsilon: float,
) -> Float[Tensor, ""]:
    """1/G sum_i 1/|o_i| sum_t: every response weighs the same (the printed GRPO and PAPO objectives).

    `num_rollouts` counts the rollouts of the whole minibatch; `count_epsilon` is added to each
    |o_i| (official code: 1e-8).
    """
    lengths = mask.sum(dim=1).to(values.dtype) + count_epsilon
    per_response = zero_padding(values, mask).sum(dim=1) / lengths
    return per_response.sum() / num_rollouts
