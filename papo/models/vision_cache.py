"""Features of a frozen vision tower, kept as long as the patches they were made from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from papo.models.families import VisionFeatures


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Entry:
    stamp: tuple[object, ...]
    features: VisionFeatures


class VisionFeatureCache:
    """Remembers what a frozen tower said of a tensor of patches.

    The key is the patch tensor itself, weakly held: rollout, scoring, the reference and every epoch
    of an update see the same tensor and share one pass, and the features go when the batch goes. An
    entry is not used after the tower, the patches, the device or the precision has changed.

    Args:
        modules: of the vision tower; while any of their parameters is trainable, nothing is kept.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.modules = modules
        self.entries = WeakTensorKeyDictionary()

    def is_valid(self) -> bool:
        return not any(p.requires_grad for p in self._parameters())

    def _parameters(self) -> list[nn.Parameter]:
        return [p for module in self.modules for p in module.parameters()]

    def copy(self) -> "VisionFeatureCache":
        """Knows the same, and learns apart from this one."""
        copied = VisionFeatureCache(self.modules)
        copied.entries = self.entries.copy()
        return copied

    def __len__(self) -> int:
        return len(self.entries)

    def get(
        self,
        patches: Sequence[Shaped[Tensor, "_ pixel"]],
        compute: Callable[[list[int]], Sequence[VisionFeatures]],
    ) -> list[VisionFeatures]:
        """Returns the features of each tensor; `compute` is called once, with the indices it must do."""
        if not self.is_valid():
            return list(compute(list(range(len(patches)))))
        tower_stamp = self._tower_stamp()
        stamps = [(_version(each), *tower_stamp) for each in patches]
        found = [
            entry.features
            if (entry := self.entries.get(each)) is not None and entry.stamp == stamp
            else None
            for each, stamp in zip(patches, stamps, strict=True)
        ]
        missing = [index for index, features in enumerate(found) if features is None]
        if missing:
            # Features first made for sampling must also be good for a pass with gradient.
            with torch.inference_mode(False), torch.no_grad():
                computed = compute(missing)
            for index, features in zip(missing, computed, strict=True):
                found[index] = features
                self.entries[patches[index]] = _Entry(stamp=stamps[index], features=features)
        return [features for features in found if features is not None]

    def _tower_stamp(self) -> tuple[object, ...]:
        """What must be the same for features to be the same; loading weights raises `_version`."""
        parameters = self._parameters()
        device, dtype = parameters[0].device, parameters[0].dtype
        autocast = (
            torch.get_autocast_dtype(device.type)
            if torch.is_autocast_enabled(device.type)
            else None
        )
        return device, dtype, autocast, sum(map(_version, parameters))


def _version(tensor: Tensor) -> int:
    """Raised by every change in place; tensors of inference mode do not count."""
    return 0 if tensor.is_inference() else tensor._version
