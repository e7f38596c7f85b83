"""Whether the weights of a run can take updates of its size."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from papo.parallel import local_tensor

# Weights of a tensor that are looked at; tensors of one model are alike.
_SAMPLE = 65_536

# Of adapters half the weights begin at 0, from where every update arrives.
MOST_THAT_MAY_STAY = 0.25

WEIGHT_DTYPES = {"bf16-true": torch.bfloat16, "16-true": torch.float16}
"""What Lightning makes of all weights, by the name of the precision; others leave them as they are."""


def share_that_stays(
    parameters: Iterable[Tensor], *, step: float, dtype: torch.dtype | None
) -> float:
    """Returns the share of weights that a step of this size leaves as they are, up and down alike.

    A sum is rounded to the precision of the weight. bfloat16 keeps eight bits, so w +- s is w again
    where s is below about |w| / 512 (half the distance to the next number, which is between |w| / 256 and
    |w| / 128). A step of AdamW is about its learning rate, and of SGD at most the rate times the norm that
    gradients are clipped to.

    Args:
        parameters: that are trained; up to 65,536 weights of each are looked at.
        step: size of an update.
        dtype: of the weights while they are trained; None: as they are.
    """
    stay = looked_at = 0.0
    for parameter in parameters:
        weights = parameter.detach().flatten()
        weights = weights[:: -(-weights.numel() // _SAMPLE)].to(dtype or parameter.dtype)
        same = (weights + step == weights) & (weights - step == weights)
        stay += float(same.float().mean()) * parameter.numel()
        looked_at += parameter.numel()
    return stay / looked_at


def check_updates_arrive(
    parameters: Iterable[nn.Parameter], *, learning_rate: float, precision: str
) -> str | None:
    """Refuses weights in half precision, more than a quarter of which updates of this size would not move.

    Args:
        parameters: that are trained, as loaded; of those in shards, what is here is looked at.
        learning_rate: of the optimiser, about the size of an update.
        precision: `trainer.precision`.

    Returns:
        A sentence where some weights stay where they are; None where all move.

    Raises:
        ValueError: more than a quarter would stay.
    """
    trained = [here for parameter in parameters if (here := local_tensor(parameter)).numel()]
    dtype = WEIGHT_DTYPES.get(precision)
    halves = [one for one in trained if (dtype or one.dtype) in (torch.bfloat16, torch.float16)]
    if not halves or learning_rate == 0:
        return None
    share = share_that_stays(halves, step=learning_rate, dtype=dtype)
    said = (
        f"{100 * share:.1f} % of the trained weights in {str(dtype or halves[0].dtype)[6:]} are too large for "
        f"an update of optimizer.lr={learning_rate:g}: the sum is rounded to the weight as it was"
    )
    if share > MOST_THAT_MAY_STAY:
        raise ValueError(
            f"{said}. Keep weights in float32 and compute in half precision: trainer.precision=bf16-mixed "
            "and model.dtype=float32, or train adapters, which stay in float32 then (+model/lora=language)."
        )
    return f"{said}." if share > 0 else None
