"""Which backend scores a call: as the user set it, or the cheaper one by counted operations."""

import logging
from collections.abc import Callable, Sequence

from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedConfig

from papo.models.flops import ScoringShape, padded_flops, shared_flops
from papo.models.reader import PromptReader
from papo.types import PromptGroup, View

Backend = Callable[
    [
        PromptReader,
        Sequence[PromptGroup],
        Int[Tensor, "rollout token"],
        Bool[Tensor, "rollout token"],
        View,
    ],
    Float[Tensor, "row hidden"],
]

SCORING_SETTINGS = ("auto", "padded", "twopass", "split")

# Sharing the prefix has a cost of its own; below this gain the plain way is as fast.
_PADDED_ABOVE = 0.9

_log = logging.getLogger(__name__)


class BackendChoice:
    """Names the backend of each call and logs it when it changes.

    Args:
        scoring: one of `SCORING_SETTINGS`.
        gradient_checkpointing: whether passes with gradient recompute activations.
        config: of the model.

    Raises:
        ValueError: an unknown setting, or `twopass` with gradient checkpointing.
    """

    def __init__(
        self, *, scoring: str, gradient_checkpointing: bool, config: PreTrainedConfig
    ) -> None:
        if scoring not in SCORING_SETTINGS:
            raise ValueError(
                f"scoring is one of {', '.join(SCORING_SETTINGS)}; got {scoring!r}. Set model.scoring."
            )
        if scoring == "twopass" and gradient_checkpointing:
            raise ValueError(
                "two-pass scoring needs a cache, which gradient checkpointing drops. Set "
                "model.scoring=split (or auto), or model.gradient_checkpointing=false."
            )
        self.scoring = scoring
        self.gradient_checkpointing = gradient_checkpointing
        self.config = config
        self.last = ""

    def __call__(
        self, groups: Sequence[PromptGroup], response_mask: Bool[Tensor, "rollout token"]
    ) -> str:
        """Returns the name of the backend for these groups and responses."""
        if self.scoring != "auto":
            return self.scoring
        shape = ScoringShape.of(groups, response_mask)
        padded = padded_flops(self.config, shape, images_per_response=False).total
        ratio = shared_flops(self.config, shape).total / padded
        chosen = "padded" if ratio > _PADDED_ABOVE else "split"
        if chosen != self.last:
            _log.info(
                "scoring: %s (a shared prefix needs %.0f %% of the operations)", chosen, 100 * ratio
            )
            self.last = chosen
        return chosen
