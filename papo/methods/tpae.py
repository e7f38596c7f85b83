"""TPAE (arXiv:2609.39168), from a second-hand summary: tentative, its paper was not seen."""

from dataclasses import dataclass

import torch

from papo.functional import shrunk_gaussians
from papo.objective import Blocks, Credit, Number, TokenValues, old, old_needs
from papo.types import IMAGE, Needs, RolloutBatch

LEAST_SAMPLES = 3
LEAST_ROUNDNESS = 1e-10
"""Of a Gaussian that tells distances: its determinant over that of a round one of the same spread."""


@dataclass(kw_only=True, eq=False)
class TPAE(Credit):
    """Tokens lose up to 0.5 that are far from how right responses to the prompt use them.

    A token is the point (KL(p || view), H[p]); a Gaussian of each token id is taken from the right responses.

    Args:
        view: a masked one.
        boundary: Mahalanobis distance from which a token loses; 3.03 leaves 1 % of a Gaussian outside.
        scope: the responses that a Gaussian is taken of.
    """

    view: str
    boundary: Number
    scope: str = "group"

    def __post_init__(self) -> None:
        self.check_number("boundary")
        self.check_scopes("scope")

    @property
    def needs(self) -> Needs:
        return old_needs((self.view, "kl_from_image"), (IMAGE, "entropy"))

    def distances(self, batch: RolloutBatch, blocks: Blocks) -> TokenValues:
        """Returns the Mahalanobis distance of each token; 0 where fewer than 3 samples or no spread tell it."""
        assert batch.response_ids is not None, "a rollout has its tokens"
        mask, block = batch.response_mask, torch.zeros_like(batch.response_ids)
        for number, rows in enumerate(blocks.rows(self.scope)):
            block[rows] = number
        kinds = torch.stack([block[mask], batch.response_ids[mask]], dim=1)
        different, kind = kinds.unique(dim=0, return_inverse=True)
        seen = (old(batch, self.view, "kl_from_image"), old(batch, IMAGE, "entropy"))
        points = torch.stack([values[mask].double() for values in seen], dim=1)
        right = batch.correct[:, None].expand_as(mask)[mask]
        counts, means, spread = shrunk_gaussians(points[right], kind[right], len(different))
        # Nearly on a line, a Gaussian has no distances that rounding does not decide, some of them below 0.
        flat = spread.diagonal(dim1=1, dim2=2).mean(dim=1) ** 2 * LEAST_ROUNDNESS
        known = (counts >= LEAST_SAMPLES) & (torch.linalg.det(spread) > flat.clamp_min(1e-24))
        spread[~known] = torch.eye(2).to(points)
        away = (points - means[kind])[:, :, None]
        squared = (away.mT @ torch.linalg.inv(spread)[kind] @ away).flatten()
        distances = squared.sqrt().where(known[kind], 0.0).to(batch.old_logprobs)
        return torch.zeros_like(batch.old_logprobs).masked_scatter(mask, distances)

    def __call__(self, batch: RolloutBatch, blocks: Blocks, *, progress: float) -> TokenValues:
        margin = (self.boundary - self.distances(batch, blocks)).clamp_max(0)
        return batch.advantages + margin.sigmoid() - 0.5
