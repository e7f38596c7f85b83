"""The device and the precision of the weights that a command asks for, where it only reads a policy."""

import torch

from papo.parallel import Ranks

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str) -> torch.device:
    """Returns the device; `auto` is the GPU where there is one.

    Raises:
        ValueError: a device that is not here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device is auto, cpu or cuda; got {name!r}. Set device.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("there is no GPU here, or PyTorch does not see it; set device=cpu")
    return device


def check_device_of_each(name: str, device: torch.device, devices: int, ranks: Ranks) -> None:
    """Refuses a device that several processes would share.

    Raises:
        ValueError: all would take the same, or this machine, which is to start them, has fewer GPUs.
    """
    if device.type != "cuda" or devices == 1:
        return
    if device.index is not None:
        raise ValueError(
            f"each of devices={devices} processes takes a GPU of its own; got device={name}. Set device=cuda."
        )
    # Those that a scheduler started may see only their own.
    if ranks.size == 1 and devices > (found := torch.cuda.device_count()):
        raise ValueError(
            f"PyTorch sees {found} GPUs here; got devices={devices}. Lower it, or look at CUDA_VISIBLE_DEVICES."
        )


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
