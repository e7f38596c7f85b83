"""A credit of one's own: how the advantage of a response is divided among its tokens."""

from dataclasses import dataclass

from papo.objective import Credit, old, old_needs


@dataclass(kw_only=True, eq=False)
class Surprised(Credit):
    """Tokens learn in proportion to how much less likely a view makes them.

    Args:
        view: which.
    """

    view: str

    @property
    def needs(self):
        return old_needs((self.view, "logprobs"))

    def __call__(self, batch, blocks, *, progress):
        return batch.advantages * (batch.old_logprobs - old(batch, self.view)).clamp_min(0)
