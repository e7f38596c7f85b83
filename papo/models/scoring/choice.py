"""Which backend scores a call: as the user set it, or the cheaper one by counted operations.

Of the ways to share a prefix, `split` is taken on a CPU, where fused calls are not reliably faster, and
`merged` on a GPU, where a mask rules out the fastest kernels (docs/benchmarks.md has the evidence).
"""

import logging
from collections.abc import Sequence
from typing import Protocol

from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedConfig

from papo.models.flops import ScoringShape, padded_flops, shared_flops
from papo.models.hidden_states import ImageCosines
from papo.models.reader import PromptReader
from papo.models.recurrent_state import has_recurrence
from papo.models.scoring.merged_check import merged_is_exact
from papo.types import PromptGroup


class Backend(Protocol):
    """A way to the hidden states that predict response tokens; `watch` sees all others on the way."""

    def __call__(
        self,
        reader: PromptReader,
        groups: Sequence[PromptGroup],
        response_ids: Int[Tensor, "rollout token"],
        response_mask: Bool[Tensor, "rollout token"],
        *,
        watch: ImageCosines | None = None,
    ) -> Float[Tensor, "row hidden"]: ...


SCORING_SETTINGS = ("auto", "padded", "twopass", "split", "merged", "flex")

# Sharing the prefix has a cost of its own; below this gain the plain way is as fast.
_PADDED_ABOVE = 0.9

_log = logging.getLogger(__name__)


class BackendChoice:
    """Names the backend of each call and logs it when it changes.

    Args:
        scoring: one of `SCORING_SETTINGS`.
        config: of the model.

    Raises:
        ValueError: an unknown setting, or `split`, `merged` or `flex` for a model whose layers see only a window.
    """

    def __init__(self, *, scoring: str, config: PreTrainedConfig) -> None:
        if scoring not in SCORING_SETTINGS:
            raise ValueError(
                f"scoring is one of {', '.join(SCORING_SETTINGS)}; got {scoring!r}. Set model.scoring."
            )
        layer_types = getattr(config.get_text_config(), "layer_types", None) or ()
        self.is_recurrent = has_recurrence(config)
        self.can_split = all(each in ("full_attention", "linear_attention") for each in layer_types)
        if scoring in ("split", "merged", "flex") and not self.can_split:
            raise ValueError(
                f"{scoring} scoring knows full attention only, and this model has sliding windows. Set "
                "model.scoring=auto, which is then padded."
            )
        self.scoring = scoring
        self.config = config
        self.last = ""

    @property
    def shares_prefix(self) -> bool:
        """Whether each prompt is read once for all its responses, wherever that saves a lot."""
        return self.scoring == "twopass" or (self.scoring != "padded" and self.can_split)

    def __call__(
        self,
        groups: Sequence[PromptGroup],
        response_mask: Bool[Tensor, "rollout token"],
        reader: PromptReader,
    ) -> str:
        """Returns the name of the backend for these groups and responses, read by this reader.

        Raises:
            ValueError: a counterfactual view of a model whose layers see only a window, or are linear attention.
        """
        if any(group.salient_above is not None for group in groups):
            if self.is_recurrent:
                raise ValueError(
                    "a counterfactual view replaces what attention says of a picture; got a model with linear "
                    "attention, which looks at no token again. Choose another model=, or an objective without that view."
                )
            if not self.can_split:
                raise ValueError(
                    "a counterfactual view changes attention to all that came before; got a model with "
                    "sliding windows. Choose another model=, or an objective without that view."
                )
            return "padded"
        if self.scoring != "auto":
            return self.scoring
        if not self.can_split:
            return self._named("padded", "sliding windows")
        shape = ScoringShape.of(groups, response_mask)
        padded = padded_flops(self.config, shape, images_per_response=False).total
        ratio = shared_flops(self.config, shape).total / padded
        chosen = "padded" if ratio > _PADDED_ABOVE else _sharing(reader)
        return self._named(chosen, f"a shared prefix needs {100 * ratio:.0f} % of the operations")

    def _named(self, chosen: str, reason: str) -> str:
        if chosen != self.last:
            _log.info("scoring: %s (%s)", chosen, reason)
            self.last = chosen
        return chosen


def _sharing(reader: PromptReader) -> str:
    """The way to share a prefix on the reader's device."""
    device, channels = reader.device, reader.adapter.head_channels
    if device.type == "cuda" and merged_is_exact(device, reader.pass_precision, channels):
        return "merged"
    return "split"
