"""Weights in shards: each rank keeps a part of every weight, its gradient and its optimiser state.

FSDP2 (PyTorch's fully_shard): a layer is whole while it computes, and the gradients of all ranks are added
up shard by shard. Every pass is then a collective, also one without gradient, so ranks make equally many.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, Shard

from papo.parallel.ranks import Ranks

ReadRows = Callable[[str, int, int], Tensor]
"""Returns rows start to stop of the parameter of a policy with this name."""


class ShardablePolicy(Protocol):
    """What a policy says of itself, so that it can be cut without being known.

    Attributes:
        pass_methods: names of the methods that read weights; called on the policy, not on its parts.
        passes_alike: every pass calls every unit equally often, whatever its prompts hold.
    """

    pass_methods: tuple[str, ...]
    passes_alike: bool

    def shard_units(self) -> Sequence[nn.Module]:
        """Parts that are whole one at a time, in the order of a pass; the rest is whole during a pass."""
        ...

    def kept_whole(self) -> nn.Module | None:
        """A part that is never trained and that passes may call or not."""
        ...


class NoSharding:
    """Every rank has the whole policy, and passes are its own affair."""

    passes_are_collective = False
    shard = 0
    shard_size = 1
    holds_first_copy = True

    def apply(self, policy: Any, reference: Any, read: ReadRows | None = None) -> None:
        """Leaves them as they are."""

    @contextmanager
    def whole(self, policy: Any) -> Iterator[None]:
        """The policy always is."""
        yield

    def reshard(self, policy: Any) -> None:
        """There is nothing to free."""

    @contextmanager
    def explained(self) -> Iterator[None]:
        """No pass waits for another rank."""
        yield


class Sharding:
    """Cuts a policy into as many parts as ranks share one copy of it.

    Args:
        ranks: the processes of the run, already joined.
        shard_size: ranks that share one copy; None: all. With fewer than all, each so many consecutive
            ranks have a copy, and the gradients of the copies are added up (HSDP).
        device_type: where the weights live: cpu or cuda.
        half_precision: passes run in bfloat16, on copies of float32 weights; gradients are added up in
            float32.

    Raises:
        ValueError: see `check_shard_size`.
    """

    passes_are_collective = True

    def __init__(
        self, *, ranks: Ranks, shard_size: int | None, device_type: str, half_precision: bool
    ) -> None:
        self.shard_size = check_shard_size(shard_size, ranks.size)
        self.ranks = ranks
        self.half_precision = half_precision
        self.device_type = device_type
        # Ranks are numbered copy by copy.
        self.shard = ranks.rank % self.shard_size
        self.holds_first_copy = ranks.rank < self.shard_size

    def apply(self, policy: Any, reference: Any, read: ReadRows | None = None) -> None:
        """Cuts the policy, and the copy that is its reference, in place. Once, before an optimiser is made.

        Args:
            policy: a ShardablePolicy, the same on every rank; whole, or with parameters on the meta device.
            reference: the copy, never trained; None where there is none.
            read: gives the parameters that are on the meta device; asked for the rows that belong here.
        """
        mesh = self._mesh()
        half = torch.bfloat16 if self.half_precision else None
        unread = _on_meta(policy)
        self._shard(policy, mesh, _precision(half))
        if read is not None:
            _fill(policy, unread, read)
        self._begin(policy)
        if reference is not None:
            unread = _on_meta(reference)
            # Passes read it in this precision anyway; a second set of float32 weights would say no more.
            _cast(reference.parameters(), half)
            self._shard(reference, mesh, _precision(None))
            _copy(policy, reference, unread)
            self._begin(reference)

    def _mesh(self) -> DeviceMesh:
        copies = self.ranks.size // self.shard_size
        if copies == 1:
            return init_device_mesh(self.device_type, (self.shard_size,), mesh_dim_names=("shard",))
        return init_device_mesh(
            self.device_type, (copies, self.shard_size), mesh_dim_names=("copy", "shard")
        )

    def _shard(self, policy: Any, mesh: DeviceMesh, precision: MixedPrecisionPolicy) -> None:
        ignored = set(policy.kept_whole())
        assert not any(p.requires_grad for p in ignored), "what is trained is in shards"
        _cast(ignored, torch.bfloat16 if self.half_precision else None)
        for unit in policy.shard_units():
            fully_shard(unit, mesh=mesh, mp_policy=precision, ignored_params=ignored)
        fully_shard(policy, mesh=mesh, mp_policy=precision, ignored_params=ignored)
        _allocate(policy, torch.device(self.device_type))

    def _begin(self, policy: Any) -> None:
        for name in policy.pass_methods:
            register_fsdp_forward_method(policy, name)
        for module in _sharded_modules(policy):
            # Terms are normalised by the whole minibatch: gradients of ranks add up, FSDP would average.
            module.set_gradient_divide_factor(1.0)
            # Gloo knows no sum with a factor, and there is none.
            module.set_force_sum_reduction_for_comms(True)
        policy.passes_alike = True
        # What is called first becomes the root of all that is below it, and a part may be called alone.
        policy()
        self.reshard(policy)

    @contextmanager
    def whole(self, policy: Any) -> Iterator[None]:
        """Within, this rank has all weights, and passes without gradient need no other rank.

        All ranks enter and leave together; what they do inside is their own affair.
        """
        modules = _sharded_modules(policy)
        if not modules or not policy.passes_alike:
            yield
            return
        with self.explained():
            # A rank may come much later, from a table or an evaluation.
            self.ranks.wait_for_all()
            for module in modules:
                module.set_reshard_after_forward(False, recurse=False)
                module.unshard()
        policy.passes_alike = False
        try:
            yield
        finally:
            policy.passes_alike = True
            for module in modules:
                # The root's weights, as the head's, are read until the end of the backward pass.
                module.set_reshard_after_forward(module is not policy, recurse=False)
                module.reshard()

    def reshard(self, policy: Any) -> None:
        """Frees what passes without a backward pass have left whole."""
        for module in _sharded_modules(policy):
            module.reshard()

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Within, a pass that failed because another rank is gone names that rank."""
        with self.ranks.explained():
            yield


def check_shard_size(shard_size: object, num_ranks: int) -> int:
    """Returns how many ranks share one copy of the policy.

    Raises:
        ValueError: they are not an equal part of all ranks.
    """
    if shard_size is None:
        return num_ranks
    if (
        isinstance(shard_size, bool)
        or not isinstance(shard_size, int)
        or shard_size < 2
        or num_ranks % shard_size
    ):
        raise ValueError(
            "copies of the policy are spread over equally many processes, at least 2; got trainer.shard_size="
            f"{shard_size!r} for {num_ranks} processes. Set it to a divisor of {num_ranks}, e.g. the GPUs of one "
            "machine, to null for one copy over all, or trainer=replicas for one copy each."
        )
    return shard_size


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shard0:
    """What this rank has of a tensor that is cut along its first dimension.

    Attributes:
        local: rows start, start + 1, ... of the tensor; there may be none.
        start: the first row.
        shape: of the whole tensor.
    """

    local: Tensor
    start: int
    shape: tuple[int, ...]


def shard_of(tensor: Tensor) -> Shard0 | None:
    """Returns this rank's part of a tensor; None for a tensor that every rank has whole."""
    if not isinstance(tensor, DTensor):
        return None
    assert tensor.placements[-1] == Shard(0), "fully_shard cuts the first dimension"
    start, stop = _rows_here(tensor)
    local = tensor.to_local().detach()
    assert local.shape[0] == stop - start, "rows are cut as torch.chunk cuts them"
    return Shard0(local=local, start=start, shape=tuple(tensor.shape))


def sharded_like(like: Tensor, read: Callable[[int, int], Tensor]) -> Tensor:
    """Returns a tensor that is cut as another is.

    Args:
        like: a tensor in shards.
        read: returns rows start to stop of the whole tensor; called with those that belong here.
    """
    assert isinstance(like, DTensor)
    local = read(*_rows_here(like)).to(like.device)
    return DTensor.from_local(
        local,
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )


def full_tensor(tensor: Tensor) -> Tensor:
    """The whole of a tensor, on every rank; a collective where it is in shards."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local_tensor(tensor: Tensor) -> Tensor:
    """What this rank has of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _rows_here(tensor: DTensor) -> tuple[int, int]:
    mesh, num_rows = tensor.device_mesh, tensor.shape[0]
    size = -(-num_rows // mesh.size(mesh.ndim - 1))
    start = min(mesh.get_local_rank(mesh.ndim - 1) * size, num_rows)
    return start, min(start + size, num_rows)


def _on_meta(policy: nn.Module) -> set[str]:
    return {name for name, parameter in policy.named_parameters() if parameter.is_meta}


def _allocate(policy: nn.Module, device: torch.device) -> None:
    """Moves a policy that was cut to where it computes; gives this rank's part of what is on the meta device room."""
    made: dict[nn.Parameter, nn.Parameter] = {}
    for module in policy.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_meta:
                if parameter not in made:
                    made[parameter] = nn.Parameter(
                        torch.empty_like(parameter, device=device), parameter.requires_grad
                    )
                # Tied weights stay tied.
                setattr(module, name, made[parameter])
    # FSDP looks for new parameters where a module is moved.
    policy.to(device)


@torch.no_grad()
def _fill(policy: nn.Module, unread: set[str], read: ReadRows) -> None:
    for name, parameter in policy.named_parameters():
        if name in unread:
            shard = shard_of(parameter)
            local, start = (parameter, 0) if shard is None else (shard.local, shard.start)
            local.copy_(read(name, start, start + local.shape[0]))


@torch.no_grad()
def _copy(policy: nn.Module, reference: nn.Module, unread: set[str]) -> None:
    """Gives a reference that was cut as its policy is the policy's weights."""
    theirs = dict(policy.named_parameters())
    for name, parameter in reference.named_parameters():
        if name in unread:
            local_tensor(parameter).copy_(local_tensor(theirs[name]))


def _precision(half: torch.dtype | None) -> MixedPrecisionPolicy:
    return MixedPrecisionPolicy(
        param_dtype=half,
        reduce_dtype=None if half is None else torch.float32,
        # Positions stay precise, and a prefix that moves on in place is not copied.
        cast_forward_inputs=False,
    )


def _cast(parameters: Any, dtype: torch.dtype | None) -> None:
    """Parameters alone: buffers such as rotary frequencies stay as precise as they are."""
    if dtype is not None:
        for parameter in parameters:
            parameter.data = parameter.data.to(dtype)


def _sharded_modules(policy: Any) -> list[FSDPModule]:
    """The policy itself first, where it is in shards."""
    return [module for module in policy.modules() if isinstance(module, FSDPModule)]
