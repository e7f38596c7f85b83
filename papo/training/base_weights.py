"""Weights that a run does not train: a checkpoint leaves them out and keeps a fingerprint instead."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from papo.parallel import local_tensor

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


@torch.no_grad()
def fingerprint(parameters: Mapping[str, Tensor]) -> str:
    """Returns a hash of parameters, the same on every device and for every number of threads."""
    digest = hashlib.sha256()
    for name, parameter in parameters.items():
        assert local_tensor(parameter) is parameter, "a shard has no fingerprint of the whole"
        bits = parameter.detach().contiguous().view(_INTEGERS[parameter.element_size()])
        # An integer sum is exact, so it does not depend on the order of its terms.
        digest.update(f"{name}{tuple(parameter.shape)}{int(bits.sum(dtype=torch.int64))}".encode())
    return digest.hexdigest()


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
