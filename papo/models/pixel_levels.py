"""Patches held as the 256 levels of the picture they were made from: a quarter of the memory, the same bits.

Normalisation maps each level of a channel to one number. Whoever holds many pictures packs them, and
the device that reads them unpacks them, which moves a quarter of the bytes as well.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor


class PixelLevels:
    """The numbers that a processor makes of the levels of each channel.

    Args:
        image_processor: is asked for them, so that they are its own to the last bit.
    """

    def __init__(self, image_processor: Any) -> None:
        levels = np.broadcast_to(np.arange(256, dtype=np.uint8), (3, 1, 256))
        scaled = image_processor.rescale(levels, image_processor.rescale_factor)
        numbers = image_processor.normalize(
            scaled, image_processor.image_mean, image_processor.image_std
        )
        self.numbers = torch.from_numpy(np.ascontiguousarray(numbers[:, 0]))

    def pack(
        self, patches: Float[Tensor, "patch pixel"]
    ) -> Float[Tensor, "patch pixel"] | UInt8[Tensor, "patch pixel"]:
        """The levels of these patches; the patches themselves where they are not made of levels."""
        if patches.dtype != self.numbers.dtype:
            return patches
        first, last = self.numbers[:, :1], self.numbers[:, 255:]
        levels = (patches.unflatten(1, (3, -1)) - first) * (255 / (last - first))
        packed = levels.round_().clamp_(0, 255).to(torch.uint8).flatten(1)
        return packed if torch.equal(self.unpack(packed), patches) else patches

    def unpack(
        self, patches: Float[Tensor, "patch pixel"] | UInt8[Tensor, "patch pixel"]
    ) -> Float[Tensor, "patch pixel"]:
        """The patches, on the device where their levels are; what is not packed stays as it is."""
        if patches.dtype != torch.uint8:
            return patches
        numbers = self.numbers.to(patches.device, non_blocking=True)
        per_channel = patches.unflatten(1, (3, -1)).unbind(dim=1)
        return torch.cat(
            [
                of_channel.take(levels.long())
                for of_channel, levels in zip(numbers, per_channel, strict=True)
            ],
            dim=1,
        )

    def unpacked(self, patches: Sequence[Tensor], device: torch.device) -> Tensor:
        """The patches of several pictures on a device, one after another."""
        return torch.cat([self.unpack(each.to(device)) for each in patches])
