"""What the objective refuses, and the error that stops a run whose loss is no longer a number."""

import re
from collections.abc import Mapping

from torch import Tensor


class SettingError(ValueError):
    """A setting is out of its range, or contradicts another.

    Args:
        text: the message; settings stand in it as {name}. Who knows where they were set puts the keys in.
    """

    def __init__(self, text: str) -> None:
        super().__init__(re.sub(r"\{(\w+)\}", r"\1", text))
        self.text = text

    def with_keys(self, keys: Mapping[str, str]) -> str:
        """Returns the message with the configuration's keys for the names of the settings."""
        return re.sub(r"\{(\w+)\}", lambda name: keys.get(name[1], name[1]), self.text)


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
