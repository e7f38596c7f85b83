"""VEPO (arXiv:2606.03937, code Leonnnnnn929/VEPO@4247308)."""

from dataclasses import dataclass

from papo.functional import DISTURBANCES, disturbance, largest_share
from papo.objective import Blocks, Credit, Number, TokenValues, old, old_needs
from papo.types import IMAGE, Needs, Quantity, RolloutBatch


@dataclass(kw_only=True, eq=False)
class VEPO(Credit):
    """The tokens learn whose distribution and entropy the view changes most and that are uncertain.

    Args:
        view: a noised one.
        alpha: how much the divergence weighs against the change of the entropy, 0 to 1.
        top_share: of a response's tokens that are selected.
        average: of the surrogate; a mean over selected tokens is none over responses.
        score: a key of papo.functional.DISTURBANCES; D is the paper's.
        divergence: jsd_from_image, or kl_from_image (score H of the code is D with it).
        lowest: those with the smallest scores are selected.
        emphasis: null: the mean is over the selected tokens of the minibatch; otherwise over all, where a selected
            one weighs 1 + emphasis.
    """

    view: str
    alpha: Number
    top_share: Number
    average: str
    score: str = "D"
    divergence: Quantity = "jsd_from_image"
    lowest: bool = False
    emphasis: Number | None = None

    def __post_init__(self) -> None:
        self.check_share("top_share")
        self.check_choice("score", *DISTURBANCES)
        self.check_choice("divergence", "jsd_from_image", "kl_from_image")
        self.check_number("alpha", most=1.0)
        if self.emphasis is None:
            self.check_choice("average", "token")

    @property
    def needs(self) -> Needs:
        return old_needs((self.view, self.divergence), (self.view, "entropy"), (IMAGE, "entropy"))

    def scores(self, batch: RolloutBatch) -> TokenValues:
        """Returns what the tokens of a response are ordered by."""
        entropy = old(batch, IMAGE, "entropy")
        divergence = old(batch, self.view, self.divergence)
        rise = old(batch, self.view, "entropy") - entropy
        return disturbance(
            divergence, rise, entropy, batch.response_mask, score=self.score, alpha=self.alpha
        )

    def __call__(self, batch: RolloutBatch, blocks: Blocks, *, progress: float) -> TokenValues:
        mask, sign = batch.response_mask, -1 if self.lowest else 1
        chosen = largest_share(sign * self.scores(batch), mask, self.top_share)
        weights = chosen.to(batch.advantages)
        if self.emphasis is not None:
            return batch.advantages * (1 + self.emphasis * weights)
        for rows in blocks.rows("minibatch"):
            # The surrogate is as large as the advantage: its mean over all tokens is that over the selected.
            weights[rows] *= int(mask[rows].sum()) / int(chosen[rows].sum())
        return batch.advantages * weights
