"""The weights of a policy on their way to servers that hold a copy: through safetensors files in one folder."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from papo.parallel import Ranks, full_tensor

_LONGEST_RUN_NAME = 80


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightSource:
    """A policy's weights under the names of its Hugging Face model, read anew for every version.

    Attributes:
        weights: yields name and value of every weight, adapters merged in; a value may be in shards.
        ranks: the processes of the run; all of them read together, in the same order.
        run: names the run, so that two on one server find each other out (`run_name`).
    """

    weights: Callable[[], Iterable[tuple[str, Tensor]]]
    ranks: Ranks
    run: str

    @contextmanager
    def files(
        self, folder: Path, version: str, *, most_bytes: int, dtype: torch.dtype | None
    ) -> Iterator[tuple[str, ...]]:
        """Within, the folder holds all weights; gives the names of the files, VERSION-00001-of-00003.safetensors.

        Collective. Only the first rank of each machine writes: a folder may be a disk of one machine alone.

        Args:
            folder: where.
            version: what the names begin with.
            most_bytes: of a file, unless a single weight is larger.
            dtype: of the values; None: the policy's own.

        Raises:
            ValueError: a file cannot be written.
        """
        written: list[Path] = []
        count = 0
        try:
            for count, part in enumerate(self._parts(most_bytes, dtype), start=1):
                if self._writes:
                    # Not its name yet: how many there are is in it.
                    path = folder / f"{version}.{os.uname().nodename}.{count}.unfinished"
                    written.append(path)
                    _write(path, part)
            names = tuple(
                f"{version}-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)
            )
            for place, name in enumerate(names if self._writes else ()):
                os.replace(written[place], folder / name)
                written[place] = folder / name
            self.ranks.wait_for_all()
            yield names
        finally:
            for path in written:
                path.unlink(missing_ok=True)

    @property
    def _writes(self) -> bool:
        return self.ranks.local_rank == 0

    @torch.no_grad()
    def _parts(self, most_bytes: int, dtype: torch.dtype | None) -> Iterator[dict[str, Tensor]]:
        """All weights, so many bytes at a time; where they are in shards, one is whole at a time."""
        part: dict[str, Tensor] = {}
        size = 0
        for name, value in self.weights():
            whole = full_tensor(value.detach()).to(dtype or value.dtype)
            if part and size + whole.nbytes > most_bytes:
                yield part
                part, size = {}, 0
            part[name] = whole.cpu().contiguous() if self._writes else whole.new_empty(0)
            size += whole.nbytes
        yield part


def run_name(folder: Path, mark: str) -> str:
    """Returns what versions of a run's weights begin with: of its folder's name what a file name may hold.

    Args:
        folder: of the run.
        mark: tells apart two starts in folders of one name.
    """
    plain = re.sub(r"[^A-Za-z0-9_]+", "-", folder.name).strip("-_")[-_LONGEST_RUN_NAME:]
    return f"{plain.lstrip('-_') or 'run'}-{mark}"


def _write(path: Path, part: Mapping[str, Tensor]) -> None:
    try:
        save_file(dict(part), path)
    except Exception as error:  # safetensors has an exception of its own for a full disk
        raise ValueError(
            f"the weights for the rollout servers cannot be written to {path.parent}: {error}. Set "
            "rollout.weights_folder to the folder that the servers were started with (PAPO_WEIGHTS_FOLDER), with room "
            "for all weights."
        ) from error
