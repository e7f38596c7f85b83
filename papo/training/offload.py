"""What is not read while responses are sampled waits on the host: optimiser state and reference.

Storages are emptied and filled, tensors stay the objects they are: views, shards and what FSDP keeps of them are
valid again as soon as their bytes are back. PyTorch rounds page-locked blocks up to powers of two, so the host
needs up to twice what is moved.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from papo.parallel import local_tensor

Move = Callable[[Tensor, Tensor], object]
"""Copies the bytes of one tensor into another."""


class Offload:
    """Moves tensors to the host and back, each once; numbers stay the same to the bit.

    Args:
        pinned: the host's copies are page-locked, so that they travel at the speed of the bus.
        move: copies bytes; for tests.
    """

    def __init__(
        self,
        *,
        pinned: bool,
        move: Move = lambda target, source: target.copy_(source, non_blocking=True),
    ) -> None:
        self._pinned = pinned
        self._move = move
        # Kept from rollout to rollout: locking pages takes long.
        self._hosts: dict[int, Tensor] = {}
        self._away: list[tuple[Tensor, Tensor]] = []

    @contextmanager
    def away(self, tensors: Iterable[Tensor]) -> Iterator[None]:
        """Within, these are on the host; afterwards they are where they were, however it ends."""
        self._take(tensors)
        try:
            yield
        finally:
            self.bring_back()

    def bring_back(self) -> None:
        """Puts what is away back, at once: a checkpoint is asked for."""
        for here, host in self._away:
            here.untyped_storage().resize_(host.numel())
            self._move(here, host)
        self._away.clear()

    def _take(self, tensors: Iterable[Tensor]) -> None:
        assert not self._away, "what is away does not go again"
        hosts: dict[int, Tensor] = {}
        seen: set[int] = set()
        for tensor in tensors:
            storage = local_tensor(tensor.detach()).untyped_storage()
            # Steps are counted on the host.
            if storage.data_ptr() in seen or storage.nbytes() <= 8:
                continue
            seen.add(storage.data_ptr())
            key = len(hosts)
            host = self._hosts.get(key)
            if host is None or host.numel() != storage.nbytes():
                host = torch.empty(storage.nbytes(), dtype=torch.uint8, pin_memory=self._pinned)
            hosts[key] = host
            here = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
            self._move(host, here)
            storage.resize_(0)
            self._away.append((here, host))
        self._hosts = hosts


class NoOffload:
    """Everything stays where it is."""

    @contextmanager
    def away(self, tensors: Iterable[Tensor]) -> Iterator[None]:
        """Leaves them there."""
        yield

    def bring_back(self) -> None:
        """Nothing is away."""


def check_offload(asked: object, device: torch.device) -> None:
    """Refuses to move what is on the host already.

    Raises:
        ValueError: the setting is no truth value, or the run computes on the CPU.
    """
    if asked not in (None, True, False):
        raise ValueError(f"trainer.offload_while_sampling is true or false; got {asked!r}")
    if asked and device.type != "cuda":
        raise ValueError(
            "optimiser and reference can wait on the host where a run computes on GPUs; got "
            f"trainer.offload_while_sampling=true on {device}. Set it to false."
        )
