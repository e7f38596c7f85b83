"""CPPO's contrast (Zheng et al., arXiv:2601.00501, code vbdi/cppo@77f8763)."""

from dataclasses import dataclass
from typing import ClassVar

from torch.nn.functional import softplus

from papo.functional import k3_dependence, largest_share
from papo.objective import Blocks, SettingError, Term, look, view_needs
from papo.objective.term import Number, TokenChoice, TokenValues
from papo.types import IMAGE, Needs, RolloutBatch, TokenScores


@dataclass(kw_only=True, eq=False)
class ViewContrast(Term):
    """softplus((d(preserve) - d(remove)) / temperature): one view should change a token less than the other.

    d is a divergence from the image at the sampled token, and gradient flows through all three log-probs. The mean is
    over the tokens whose entropy under the rollout policy rises most where the picture is removed.

    Args:
        preserve, remove: views with and without what matters.
        temperature: of the contrast.
        top_share: of a response's tokens with a rise that count, the largest relative rises; None: all tokens.
        divergence: "k3", in [0, 10]; or "k1", as of their second code, in which the image's log-prob cancels.
        gate: "positive": only tokens with a positive advantage count; or "all".
        rounds_up: whether a share of a token is one more (their second code) or none.
    """

    chooses: ClassVar[bool] = True
    preserve: str
    remove: str
    temperature: Number
    top_share: Number | None
    divergence: str = "k3"
    gate: str = "positive"
    rounds_up: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_number("temperature", above=0.0)
        self.check_choice("divergence", ("k3", "k1"))
        self.check_choice("gate", ("positive", "all"))
        if self.top_share is not None and not 0.0 < self.top_share <= 1.0:
            raise SettingError(f"{{top_share}} is a share, above 0 to 1; got {self.top_share}")

    @property
    def needs(self) -> Needs:
        live = [view_needs(view, "current", "logprobs") for view in (self.preserve, self.remove)]
        if self.top_share is None:
            return live[0] | live[1]
        old = [view_needs(view, "old", "entropy") for view in (IMAGE, self.remove)]
        return live[0] | live[1] | old[0] | old[1]

    def choose(self, batch: RolloutBatch, blocks: Blocks) -> TokenChoice:
        chosen = batch.response_mask
        if self.top_share is not None:
            removed, clean = (batch.old_views[view].entropy for view in (self.remove, IMAGE))
            assert removed is not None
            assert clean is not None
            rise = (removed - clean) / (removed + 1e-8)
            rising = chosen & (removed > clean)
            chosen = largest_share(rise, rising, self.top_share, rounds_up=self.rounds_up)
        return chosen & (batch.advantages > 0) if self.gate == "positive" else chosen

    def __call__(self, batch: RolloutBatch, scores: TokenScores) -> TokenValues:
        return softplus(self.margin(batch, scores) / self.temperature)

    def margin(self, batch: RolloutBatch, scores: TokenScores) -> TokenValues:
        """Below 0 where removing changes the token more than preserving."""
        preserved, removed = (
            self._changed(look(batch, scores, view, "current"), scores[IMAGE].logprobs)
            for view in (self.preserve, self.remove)
        )
        return preserved - removed

    def _changed(self, view: TokenValues, image: TokenValues) -> TokenValues:
        return (
            k3_dependence(view, image) if self.divergence == "k3" else (image - view).clamp(-10, 10)
        )

    def watch(self, batch: RolloutBatch, scores: TokenScores) -> dict[str, TokenValues]:
        return {"contrast_margin": self.margin(batch, scores)}
