"""The group-relative advantage of GRPO."""

from jaxtyping import Float
from torch import Tensor


def group_advantages(
    rewards: Float[Tensor, " rollout"], *, num_responses: int, epsilon: float
) -> Float[Tensor, " rollout"]:
    """A_i = (R_i - mean R) / (std R + epsilon) within each group of contiguous rollouts.

    The standard deviation is the unbiased one, as in the official code (epsilon 1e-6); a group of
    equal rewards gets exactly 0. DeepSeekMath, arXiv:2402.03300v3.

    Raises:
        ValueError: fewer than 2 responses per prompt, or rewards are not whole groups.
    """
    if num_responses < 2:
        raise ValueError(
            "group_advantages compares the responses to one prompt, so it needs at least 2; "
            f"got num_responses={num_responses}. Set rollout.num_responses (official PAPO: 5)."
        )
    if len(rewards) % num_responses:
        raise ValueError(
            f"group_advantages needs whole groups; got {len(rewards)} rewards "
            f"for groups of {num_responses}"
        )
    return standardised(rewards, num_responses, epsilon=epsilon)


def standardised(
    values: Float[Tensor, " rollout"], size: int, *, epsilon: float, copies: int = 1
) -> Float[Tensor, " rollout"]:
    """(x - mean) / (std + epsilon) in blocks of `size` neighbours; 0 in blocks of one value.

    Each value counts `copies` times in the unbiased std.
    """
    blocks = values.reshape(-1, size)
    deviations = blocks - blocks.mean(dim=1, keepdim=True)
    # The mean of equal values is rounded, and a small epsilon makes an advantage of the difference.
    equal = blocks.amax(dim=1, keepdim=True) == blocks.amin(dim=1, keepdim=True)
    deviations = deviations.masked_fill(equal, 0.0)
    freedom = max(size - 1, 1)
    std = blocks.std(dim=1, correction=size - freedom, keepdim=True)
    if copies > 1:
        std = std * (copies * freedom / (copies * size - 1)) ** 0.5
    return (deviations / (std + epsilon)).reshape(-1)
