"""The error that stops a run whose loss is no longer a number."""

from torch import Tensor


class NonFiniteTermError(FloatingPointError):
    """A weighted term of the objective is NaN or infinite; `term` names it, `value` is what it was.

    `total` is the loss that it spoilt, for a pass that must be made whatever its loss.
    """

    def __init__(self, term: str, value: float, total: Tensor) -> None:
        super().__init__(
            f"the objective's term {term!r} is {value}: stop here, no update can repair it. The "
            "weights or the log-probabilities of this batch are already broken; look at the last "
            "steps' diagnostics, and lower the term's weight or the learning rate."
        )
        self.term = term
        self.value = value
        self.total = total
