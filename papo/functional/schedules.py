"""How a weight changes over the run; `progress` runs from 0 to 1."""


def linear_decay(progress: float, *, until: float) -> float:
    """1 at progress 0, falling linearly to 0 at `until` and staying there."""
    return max(0.0, 1.0 - progress / until)
