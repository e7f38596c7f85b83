"""The prompt as it is, read by a decoder that is kept from what it looks at most in the picture."""

from dataclasses import replace

from papo.types import PromptGroup
from papo.views.view import Item, ReadingPolicy


class CounterfactualView:
    """In every layer the strongest looks at a picture see the mean of its values instead (CFPO, arXiv:2606.23206).

    It is scored, and not sampled from.

    Args:
        deviations: how many standard deviations above their mean the attention weights are that count as strong.

    Raises:
        ValueError: a number of deviations below 0, or not finite.
    """

    name = "counterfactual"
    seed = 0
    hides = False

    def __init__(self, *, deviations: float) -> None:
        if not 0 <= deviations < float("inf"):
            raise ValueError(
                f"attention is replaced from 0 or more standard deviations above its mean on; got {deviations}. "
                "Set objective.views.counterfactual.deviations."
            )
        self.deviations = float(deviations)

    def __call__(
        self, item: Item, policy: ReadingPolicy, *, num_responses: int
    ) -> tuple[PromptGroup, ...]:
        """Returns the prompt, marked; nothing where the problem has no picture."""
        group = item.encoded(policy)
        if group.patches is None:
            return ()
        return (replace(group, salient_above=self.deviations),)
