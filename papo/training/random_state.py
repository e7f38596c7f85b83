"""The state of the global generators of random numbers, as plain values and tensors."""

import random
from typing import Any

import numpy
import torch


def random_state() -> dict[str, Any]:
    """Returns that of Python, NumPy, PyTorch and every GPU."""
    bits = numpy.random.get_state(legacy=False)
    assert isinstance(bits, dict)
    key = torch.from_numpy(bits["state"]["key"].astype("int64"))
    return {
        "python": random.getstate(),
        "numpy": {**bits, "state": {**bits["state"], "key": key}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all(),
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Goes on from a state that `random_state` returned."""
    random.setstate(state["python"])
    bits = state["numpy"]
    key = bits["state"]["key"].numpy().astype("uint32")
    numpy.random.set_state({**bits, "state": {**bits["state"], "key": key}})
    torch.set_rng_state(state["torch"])
    torch.cuda.set_rng_state_all(state["cuda"])
