"""The device of a process: one rule for every command and every way of starting processes."""

import platform

import torch

from papo.parallel.ranks import Ranks


def asks_for_gpu(asked: str) -> bool:
    """Whether a setting as of `device_of_process` means a GPU on this machine."""
    return asked != "cpu" and (asked != "auto" or torch.cuda.is_available())


def device_of_process(
    asked: str, *, devices: int, ranks: Ranks, key: str, section: str
) -> torch.device:
    """Returns the device that this process computes on.

    Where GPUs are asked for, each process of a machine has one of its own: the one with its number among them
    where it sees all, and the only one that it sees where a scheduler shows it no other (srun --gpus-per-task).

    Args:
        asked: auto (a GPU where there is one), cpu, gpu, cuda, or of one process a certain one, as cuda:1.
        devices: processes of each machine, started or yet to be.
        ranks: those that are there.
        key: of the configuration that `asked` comes from.
        section: where the configuration has `devices`, e.g. `trainer.`.

    Raises:
        ValueError: no device, or none of its own; on every rank where two of them see one GPU.
    """
    if not asks_for_gpu(asked):
        return torch.device("cpu")
    try:
        named = torch.device("cuda" if asked in ("auto", "gpu") else asked)
    except RuntimeError as error:
        raise ValueError(f"{key} is auto, cpu or cuda; got {asked!r}. Set {key}.") from error
    if named.type != "cuda":
        return named
    if not torch.cuda.is_available():
        choice = key.partition(".")[0]
        raise ValueError(
            f"there is no GPU here, or PyTorch does not see it; got {key}={asked}. Set {choice}=cpu, or {choice}=auto, "
            "which takes a GPU where there is one."
        )
    found = torch.cuda.device_count()
    if devices == 1:
        if (index := named.index or 0) >= found:
            raise ValueError(f"PyTorch sees {found} GPUs here; got {key}={asked}. Set {key}=cuda.")
        return torch.device("cuda", index)
    if named.index is not None:
        raise ValueError(
            f"each of {section}devices={devices} processes takes a GPU of its own; got {key}={asked}. Set {key}=cuda."
        )
    if found < devices and not (found == 1 and ranks.size > 1):
        raise ValueError(
            f"each process of a machine has a GPU of its own; PyTorch sees {found} GPUs here, and "
            f"{section}devices={devices}. Lower it, or look at CUDA_VISIBLE_DEVICES."
        )
    device = torch.device("cuda", own_gpu(ranks.local_rank))
    if ranks.size > 1:
        _require_different(device, ranks, section)
    return device


def own_gpu(local_rank: int) -> int:
    """Index of a process's GPU among those that it sees: its number, or 0 where it sees no other."""
    return local_rank % torch.cuda.device_count()


def _require_different(device: torch.device, ranks: Ranks, section: str) -> None:
    gpus = ranks.gather((platform.node(), str(torch.cuda.get_device_properties(device).uuid)))
    for rank, gpu in enumerate(gpus):
        if (first := gpus.index(gpu)) < rank:
            raise ValueError(
                f"each process has a GPU of its own; ranks {first} and {rank} see the same one on {gpu[0]}. Lower "
                f"{section}devices, or have the scheduler give each task its own (srun --gpus-per-task=1)."
            )
