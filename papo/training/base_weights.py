"""Weights that a run does not train: a checkpoint leaves them out and keeps a fingerprint instead."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from papo.parallel import Ranks, RanksDiffer, local_tensor

_POLICY = "policy_module.policy."


def base_parameters(policy: nn.Module) -> dict[str, Tensor]:
    """Returns the frozen parameters by name: all but the adapters with LoRA, or a frozen tower."""
    return {
        name: parameter.detach()
        for name, parameter in policy.named_parameters(remove_duplicate=False)
        if not parameter.requires_grad
    }


def trained_parameters(policy: nn.Module) -> dict[str, Tensor]:
    """Returns the parameters that are trained, by name."""
    return {
        name: parameter.detach()
        for name, parameter in policy.named_parameters()
        if parameter.requires_grad
    }


def fingerprint(parameters: Mapping[str, Tensor], sums: Mapping[str, int] | None = None) -> str:
    """Returns a hash of parameters, the same on every device and for every number of threads.

    Args:
        parameters: whole; or in any shape of being there, where `sums` has what is hashed of their values.
        sums: of `SumsOfRows`.
    """
    digest = hashlib.sha256()
    for name, parameter in parameters.items():
        total = bit_sum(parameter) if sums is None else sums[name]
        digest.update(f"{name}{tuple(parameter.shape)}{total}".encode())
    return digest.hexdigest()


@torch.no_grad()
def bit_sum(tensor: Tensor) -> int:
    """The sum of a tensor's bits as integers; those of its rows add up to it, modulo 2^64."""
    assert local_tensor(tensor) is tensor, "a shard has no fingerprint of the whole"
    bits = tensor.detach().contiguous().view(_INTEGERS[tensor.element_size()])
    # An integer sum is exact, so it does not depend on the order of its terms.
    return int(bits.sum(dtype=torch.int64))


class SumsOfRows:
    """What `fingerprint` needs of weights that no rank has whole, noted while each reads its rows.

    Args:
        read: returns rows start to stop of a weight; see Sharding.apply.
    """

    def __init__(self, read: Callable[[str, int, int], Tensor]) -> None:
        self._read = read
        self._noted: dict[str, tuple[int, int, int]] = {}

    def read(self, name: str, start: int, stop: int) -> Tensor:
        """As the `read` that it was made with."""
        rows = self._read(name, start, stop)
        if start < stop:
            self._noted[name] = (start, stop, bit_sum(rows))
        return rows

    def of_whole(self, ranks: Ranks) -> dict[str, int]:
        """Returns `bit_sum` of every weight that was read; all ranks call it.

        Raises:
            RanksDiffer: two ranks read the same rows and found something else in them.
        """
        found: dict[str, dict[tuple[int, int], int]] = {}
        for rank, theirs in enumerate(ranks.gather(self._noted)):
            for name, (start, stop, total) in theirs.items():
                if found.setdefault(name, {}).setdefault((start, stop), total) != total:
                    raise RanksDiffer(
                        f"all ranks have the same initial weights; rank {rank} has others than an earlier one in "
                        f"rows {start} to {stop} of {name}. Give all the same files (model.path)."
                    )
        return {name: _as_int64(sum(parts.values())) for name, parts in found.items()}


def _as_int64(number: int) -> int:
    return (number + 2**63) % 2**64 - 2**63


def leave_out_base(checkpoint: dict[str, Any], policy: nn.Module) -> None:
    """Takes the frozen weights of the policy out of a checkpoint that is about to be written."""
    for name in base_parameters(policy):
        del checkpoint["state_dict"][_POLICY + name]


def put_base_back(checkpoint: dict[str, Any], policy: nn.Module, base_fingerprint: str) -> None:
    """Puts the policy's own frozen weights into a checkpoint that was read.

    Args:
        checkpoint: changed in place.
        policy: just loaded, with the weights the run began with.
        base_fingerprint: of its frozen weights.

    Raises:
        ValueError: its frozen weights are not those the run began with.
    """
    if checkpoint["papo"]["base"] != base_fingerprint:
        raise ValueError(
            "the frozen weights of the policy differ from those this run began with, and a checkpoint "
            "holds only what is trained; got another model behind the same model= settings. Restore "
            "the model, or start a new run in another run_dir."
        )
    for name, parameter in base_parameters(policy).items():
        checkpoint["state_dict"][_POLICY + name] = parameter


def load_trained_policy(policy: nn.Module, checkpoint: dict[str, Any]) -> None:
    """Gives a policy, just loaded as the run's was, the weights of one of the run's checkpoints.

    Raises:
        ValueError: its frozen weights are not those the run began with.
    """
    put_base_back(checkpoint, policy, fingerprint(base_parameters(policy)))
    policy.load_state_dict(
        {
            name.removeprefix(_POLICY): value
            for name, value in checkpoint["state_dict"].items()
            if name.startswith(_POLICY)
        }
    )


_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
