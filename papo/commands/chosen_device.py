"""The device and the precision of the weights that a command asks for, where it only reads a policy."""

import torch

from papo.parallel import Ranks, device_of_process

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str) -> torch.device:
    """Returns the device of a command that is one process.

    Raises:
        ValueError: a device that is not here.
    """
    return device_of_process(name, devices=1, ranks=Ranks(), key="device", section="")


def choose_dtype(name: str, device: torch.device) -> torch.dtype | None:
    """Returns the precision of the weights; None leaves them as they are loaded.

    Raises:
        ValueError: an unknown one.
    """
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else None
    if name not in DTYPES:
        raise ValueError(f"dtype is auto, {', '.join(DTYPES)}; got {name!r}. Set dtype.")
    return DTYPES[name]
