"""Second ways to show a prompt: masked, blank, without its picture, with another's.

One kind of object for training (papo.training), evaluation and the perception probe (papo.evaluation).
Not here: what a mask hides (papo.masking).
"""

from papo.views.counterfactual import CounterfactualView
from papo.views.masked import (
    MASKED,
    BlankView,
    MaskBankView,
    MaskedView,
    changed_fraction,
    hide,
    mask_seed,
    masked_ratio,
)
from papo.views.view import ImageView, Item, ReadingPolicy, View
from papo.views.without_picture import RemovedView, SwappedView

__all__ = [
    "MASKED",
    "BlankView",
    "CounterfactualView",
    "ImageView",
    "Item",
    "MaskBankView",
    "MaskedView",
    "ReadingPolicy",
    "RemovedView",
    "SwappedView",
    "View",
    "changed_fraction",
    "hide",
    "mask_seed",
    "masked_ratio",
]
