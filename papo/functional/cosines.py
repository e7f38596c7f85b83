"""How alike states of tokens and of the image tokens of their prompt are."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

States = Float[Tensor, "token hidden"]
Owners = Int[Tensor, " token"]


def cosine_with_mean(
    states: States, owners: Owners, image_states: Float[Tensor, "image_token hidden"],
    image_owners: Int[Tensor, " image_token"], *, num_owners: int,
) -> Float[Tensor, " token"]:  # fmt: skip
    """The cosine of each state with the mean of its owner's image states (VGPO, arXiv:2604.09349); 0 without any.

    Args:
        states: at least float32.
        owners: of each state, below `num_owners`.
        image_states: at least float32.
        image_owners: of each.
        num_owners: prompts.
    """
    means = _means(image_states, image_owners, num_owners)
    return (normalize(states, dim=-1) * normalize(means, dim=-1)[owners]).sum(-1)


def mean_cosine(
    states: States, owners: Owners, image_states: Float[Tensor, "image_token hidden"],
    image_owners: Int[Tensor, " image_token"], *, num_owners: int,
) -> Float[Tensor, " token"]:  # fmt: skip
    """The mean of each state's cosines with its owner's image states (PEPO, arXiv:2603.22847); 0 without any.

    The sum over image tokens goes into the second factor, so no matrix of (token, image token) exists.
    """
    means = _means(normalize(image_states, dim=-1), image_owners, num_owners)
    return (normalize(states, dim=-1) * means[owners]).sum(-1)


def _means(values: Tensor, owners: Tensor, num_owners: int) -> Float[Tensor, "owner hidden"]:
    sums = values.new_zeros(num_owners, values.shape[1]).index_add(0, owners, values)
    counts = torch.bincount(owners, minlength=num_owners)
    return sums / counts.clamp_min(1)[:, None]
