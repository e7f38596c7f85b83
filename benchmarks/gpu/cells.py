"""The cells in the order they are asked, and their time: what is worth most first, what may end the process last."""

from collections.abc import Callable, Iterator, Sequence

from benchmarks.gpu import ceilings, decoding, passes, steps
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.worker import Answer, Cells

Cell = Callable[[Setting], Iterator[Answer]]

CELLS: dict[str, Cell] = {
    "ceilings": ceilings.ceilings,
    "fits": steps.fits,
    "decode": decoding.decode,
    "decode_parts": decoding.decode_parts,
    "draws": ceilings.draws,
    "parity": decoding.parity,
    "parts": passes.parts,
    "split": passes.by_backend("split"),
    "update": steps.update,
    "step": steps.sampled_step(),
    "papo_over_grpo": steps.papo_over_grpo,
    "flex": passes.by_backend("flex"),
    "shards": steps.shards,
    "gpu_tests": steps.gpu_tests,
    "padded": passes.by_backend("padded"),
}
VARIANT = "variant:"


def cells_of(names: Sequence[str]) -> Cells:
    """The cells by name; `variant:OVERRIDE,OVERRIDE` is a whole step with other settings."""
    found: dict[str, Cell] = {}
    for name in names:
        if name.startswith(VARIANT):
            found[name] = steps.sampled_step(*name.removeprefix(VARIANT).split(","))
        else:
            found[name] = CELLS[name]
    return found
