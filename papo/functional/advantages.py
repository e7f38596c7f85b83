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
    groups = rewards.reshape(-1, num_responses)
    deviations = groups - groups.mean(dim=1, keepdim=True)
    # The mean of equal rewards is rounded, and a small epsilon makes an advantage of the difference.
    equal = groups.amax(dim=1, keepdim=True) == groups.amin(dim=1, keepdim=True)
    deviations = deviations.masked_fill(equal, 0.0)
    return (deviations / (groups.std(dim=1, keepdim=True) + epsilon)).reshape(-1)


def standardised(
    values: Float[Tensor, " rollout"], size: int, *, epsilon: float, copies: int = 1
) -> Float[Tensor, " rollout"]:
    """(x - mean) / (std + epsilon) in blocks of `size` neighbours; 0 in blocks of one value.

    As group_advantages, for blocks of any size, and with each value counted `copies` times in the unbiased std.
    """
    blocks = values.reshape(-1, size)
    equal = blocks.amax(1, keepdim=True) == blocks.amin(1, keepdim=True)
    centred = (blocks - blocks.mean(1, keepdim=True)).masked_fill(equal, 0.0)
    freedom = max(copies * size - 1, 1)
    std = (copies * centred.square().sum(1, keepdim=True) / freedom).sqrt()
    return (centred / (std + epsilon)).reshape(-1)
