"""How long each cell may take. Not beside the cells: those load torch and transformers."""

from benchmarks.gpu.runner import Budget

MINUTES = 12

# In the order in which they are asked: what is worth most first, what may end the process last.
SECONDS = {
    "ceilings": 60,  # makes the policy
    "fits": 60,
    "decode": 60,
    "decode_parts": 25,
    "draws": 10,
    "parity": 25,
    "parts": 20,
    "split": 20,
    "update": 75,
    "step": 75,
    "papo_over_grpo": 60,
    "flex": 60,  # compiles
    "shards": 70,
    "gpu_tests": 45,
    "padded": 25,
}
VARIANT_SECONDS = 75
NEEDS_CUDA = ("flex", "gpu_tests")
"""FlexAttention has no backward pass on a CPU."""
TOY_PATIENCE = 10
"""A CPU may have much else to do; there the time of a cell guards against one that hangs."""


def budgets(
    *, is_toy: bool, variants: tuple[str, ...] = (), only: tuple[str, ...] = ()
) -> list[Budget]:
    """The cells of a plan.

    Args:
        is_toy: on a CPU.
        variants: settings, with commas between them, each of which is asked for a whole step.
        only: names of cells; none: all.
    """
    names = [
        name
        for name in SECONDS
        if (not only or name in only) and not (is_toy and name in NEEDS_CUDA)
    ]
    seconds = {name: SECONDS[name] for name in names}
    seconds |= {f"variant:{one}": VARIANT_SECONDS for one in variants}
    factor = TOY_PATIENCE if is_toy else 1
    return [Budget(cell=name, seconds=factor * limit) for name, limit in seconds.items()]
