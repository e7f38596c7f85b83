"""What an engine behind a server needs of the policy whose weights it holds."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from papo.rollout.sampler import DecodingPolicy
from papo.types import PictureLayout, Policy


@runtime_checkable
class ServedPolicy(DecodingPolicy, Policy, Protocol):
    """A policy that samples itself where it must, and says what the server should say.

    Attributes:
        encoder: its `image_token_id` fills the image slots of a prompt.
        adapter: its `head_weight` has a row per token.
    """

    encoder: Any
    adapter: Any

    @property
    def can_be_served(self) -> bool: ...

    @property
    def banned_token_ids(self) -> tuple[int, ...]: ...

    def pictures(
        self, patches: Float[Tensor, "patch pixel"], pictures: Sequence[PictureLayout]
    ) -> tuple[Image, ...]: ...
