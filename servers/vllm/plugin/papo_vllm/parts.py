"""The parts of a weight update: files in one folder, checked as a whole before any weight changes.

Knows safetensors and no vLLM.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

NAME = re.compile(
    r"(?P<version>[A-Za-z0-9][A-Za-z0-9._-]{0,199})-(?P<number>[0-9]{5})-of-(?P<total>[0-9]{5})\.safetensors"
)
"""`VERSION-00001-of-00003.safetensors`: parts are counted from 1."""

_SHOWN = 5


class WeightUpdate:
    """The parts of one version of the weights, as they are announced.

    A part stays open from then on: what is loaded is what was checked, even where the file is gone.

    Args:
        folder: the one folder that parts are read from.
        shapes: what the model needs: the name of each weight in a checkpoint, and its shape.
    """

    def __init__(self, folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.folder = folder.resolve(strict=True)
        self.shapes = shapes
        self.version: str | None = None
        self.total = 0
        self.parts: dict[int, Any] = {}
        self.names: dict[str, int] = {}

    def add(self, name: str) -> None:
        """Takes a part in, whole or not at all; its tensors are read later.

        Raises:
            ValueError: no name of a part, a file that is not in the folder, a damaged file, another version,
                or a weight that the model does not have, has in another shape, or was given already.
        """
        match = NAME.fullmatch(name)
        if match is None:
            raise ValueError(
                f"a part is named VERSION-00001-of-00003.safetensors; got {name[:200]!r}"
            )
        version, number, total = match["version"], int(match["number"]), int(match["total"])
        if not 1 <= number <= total:
            raise ValueError(f"parts are counted from 1 to their number; got {name!r}")
        if (version, total) != (self.version or version, self.total or total):
            raise ValueError(
                f"this update is {self.version!r} in {self.total} parts; got the part {name!r}"
            )
        if number in self.parts:
            raise ValueError(f"each part comes once; got {name!r} again")
        part = self._open(self._inside(name))
        self._check(name, part)
        self.version, self.total = version, total
        self.parts[number] = part
        self.names |= dict.fromkeys(part.keys(), number)

    def require_whole(self) -> None:
        """Checks that there is nothing left to come.

        Raises:
            ValueError: a part or a weight is missing; names some.
        """
        if self.version is None:
            raise ValueError("an update has at least one part; got none")
        lacking = [str(n) for n in range(1, self.total + 1) if n not in self.parts]
        if lacking:
            raise ValueError(
                f"update {self.version!r} has {self.total} parts; missing: {_some(lacking)}"
            )
        missing = sorted(self.shapes.keys() - self.names.keys())
        if missing:
            raise ValueError(
                f"update {self.version!r} holds every weight of the model; missing {len(missing)} of "
                f"{len(self.shapes)}: {_some(missing)}"
            )

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The weights, part by part in the order of their numbers."""
        for number in sorted(self.parts):
            for name in self.parts[number].keys():  # noqa: SIM118 (a file, not a dictionary)
                yield name, self.tensor(name)

    def tensor(self, name: str) -> Tensor:
        """One of the weights."""
        tensor: Tensor = self.parts[self.names[name]].get_tensor(name)
        return tensor

    def _inside(self, name: str) -> Path:
        """The file of that name in the folder, no link that leads out of it."""
        path = (self.folder / name).resolve()
        if path.parent != self.folder:
            raise ValueError(f"parts lie in {self.folder}; {name!r} leads out of it")
        if not path.is_file():
            raise ValueError(f"no part {name!r} in {self.folder}")
        return path

    def _open(self, path: Path) -> Any:
        try:
            # Its header names every tensor; a file that is too short or too long for it is refused here.
            return safe_open(path, "pt")
        except (SafetensorError, OSError) as error:
            raise ValueError(f"the part {path.name!r} is damaged: {error}") from error

    def _check(self, part_name: str, part: Any) -> None:
        """Every weight of a part is one of the model's that no part before had."""
        for name in part.keys():  # noqa: SIM118 (a file, not a dictionary)
            if name in self.names:
                raise ValueError(f"{part_name!r} holds {name}, and so does part {self.names[name]}")
            if name not in self.shapes:
                raise ValueError(f"{part_name!r} holds {name[:200]!r}, no weight of this model")
            if (shape := tuple(part.get_slice(name).get_shape())) != self.shapes[name]:
                raise ValueError(
                    f"{part_name!r} holds {name} of shape {shape}; here it is {self.shapes[name]}"
                )


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
