"""How much a view disturbs a token: the scores that VEPO orders tokens by (arXiv:2606.03937 and its code)."""

from collections.abc import Callable, Mapping

from torch import Tensor

from papo.functional.credit import Mask, Values, min_max

# Of divergence d, change c and rise r of the entropy, entropy h, each 0 to 1 in a response, and alpha a.
DISTURBANCES: Mapping[str, Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]] = {
    "A": lambda d, c, r, h, a: 1 - (1 - d) * (1 - h) * (1 - r),
    "B": lambda d, c, r, h, a: (1 - (1 - d) * (1 - h)) * r,
    "C": lambda d, c, r, h, a: (1 - (1 - d) ** a * (1 - r) ** (1 - a)) * h,
    "D": lambda d, c, r, h, a: (1 - (1 - d) ** a * (1 - c) ** (1 - a)) * h,
    "E": lambda d, c, r, h, a: 1 - (1 - d) ** a * (1 - c) ** (1 - a),
    "F": lambda d, c, r, h, a: (a * d + (1 - a) * c) * h,
    "G": lambda d, c, r, h, a: d * c * h,
}
"""D is the paper's; the others are options of its code, whose H is D with the KL divergence."""


def disturbance(
    divergence: Values, rise: Values, entropy: Values, mask: Mask, *, score: str, alpha: float
) -> Values:
    """Returns one of DISTURBANCES of each token, its parts scaled to 0 to 1 in each response.

    Args:
        divergence: of the distributions given the image and given the view.
        rise: of the entropy, from the image to the view.
        entropy: given the image.
        mask: the tokens that are there.
        score: a key of DISTURBANCES.
        alpha: how much the divergence weighs against the change of the entropy, 0 to 1.
    """
    parts = (divergence, rise.abs(), rise.clamp_min(0), entropy)
    d, c, r, h = (min_max(part, mask) for part in parts)
    return DISTURBANCES[score](d, c, r, h, alpha)
