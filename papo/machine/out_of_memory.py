"""Telling that an allocation failed, and giving back what can be given back before trying again."""

import gc

import torch

# The CPU allocator has no exception of its own.
_CPU_MESSAGES = ("not enough memory", "can't allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed: on a GPU by its type, on the CPU by what PyTorch says."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in _CPU_MESSAGES)


def release_memory() -> None:
    """Frees what nothing refers to; call it where the exception and its frames are gone."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
