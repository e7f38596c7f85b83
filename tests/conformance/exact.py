"""A model in float64 throughout: transformers computes norms and rotations in float32, whatever the weights."""

import sys
from contextlib import contextmanager
from unittest.mock import patch

import torch


class _Float64Torch:
    """The torch that a modelling file sees: what it calls float32 is float64."""

    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@contextmanager
def in_float64(policy):
    """Within, the policy computes in float64, and so does a plain pass of its model."""
    policy.double()
    files = {
        sys.modules[type(module).__module__]
        for module in policy.model.modules()
        if type(module).__module__.startswith("transformers.models.")
    }
    patches = [patch.object(file, "torch", _Float64Torch()) for file in files]
    patches.append(patch.object(torch.Tensor, "float", torch.Tensor.double))
    for each in patches:
        each.start()
    try:
        yield policy
    finally:
        for each in patches:
            each.stop()
