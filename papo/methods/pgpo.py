"""PGPO (arXiv:2604.01840v2, Eq. 4 to 8; its repository is empty)."""

from dataclasses import dataclass

from papo.functional import ascending_rank, k3_dependence, mean_one, min_max
from papo.objective import Blocks, Credit, Number, TokenValues, old, old_needs
from papo.types import Needs, RolloutBatch


@dataclass(kw_only=True, eq=False)
class PGPO(Credit):
    """A response's advantage moves from tokens that the picture changes little to those it changes much.

    Args:
        view: without the picture. The paper masks attention to its tokens; a removed or blank picture is near it.
        threshold: importance from which a token is raised; "quantile": the response's own value at this share.
        boost: a token of importance 1 has weight 1 + boost.
        estimator: of the dependence; "exact": KL(p || view) of whole distributions, "k3": of the sampled tokens.
        threshold_is: "importance" or "quantile" (said to be the authors' development code).
        floor: least weight of a token.
        keeps_mass: whether the weights of a response have a mean of 1 (development code: no).
    """

    view: str
    threshold: Number
    boost: Number
    estimator: str = "exact"
    threshold_is: str = "importance"
    floor: Number = 0.0
    keeps_mass: bool = True

    def __post_init__(self) -> None:
        self.check_share("threshold")
        self.check_number("boost", "floor")
        self.check_choice("estimator", "exact", "k3")
        self.check_choice("threshold_is", "importance", "quantile")

    @property
    def needs(self) -> Needs:
        return old_needs((self.view, "logprobs" if self.estimator == "k3" else "kl_from_image"))

    def importance(self, batch: RolloutBatch) -> TokenValues:
        """Returns log(1 + dependence) of each token, from 0 to 1 in each response."""
        if self.estimator == "k3":
            dependence = k3_dependence(old(batch, self.view), batch.old_logprobs)
        else:
            dependence = old(batch, self.view, "kl_from_image")
        return min_max(dependence.clamp_min(0).log1p(), batch.response_mask)

    def __call__(self, batch: RolloutBatch, blocks: Blocks, *, progress: float) -> TokenValues:
        mask, importance = batch.response_mask, self.importance(batch)
        threshold = self.threshold + 0 * importance
        if self.threshold_is == "quantile":
            threshold = ascending_rank(importance, mask, self.threshold).expand_as(importance)
        raised = 1 + self.boost * (importance - threshold) / (1 - threshold + 1e-8)
        weights = (importance / (threshold + 1e-8)).clamp_min(self.floor)
        weights = raised.where(importance >= threshold, weights)
        return batch.advantages * (mean_one(weights, mask) if self.keeps_mass else weights)
