"""CPPO's contrast (arXiv:2601.00501, code vbdi/cppo@77f8763)."""

from dataclasses import dataclass
from typing import ClassVar

from torch.nn.functional import softplus

from papo.functional import contrast_margin, largest_rises
from papo.objective import Number, SettingError, Term, TokenChoice, TokenValues, look
from papo.types import IMAGE, Needs, RolloutBatch, TokenScores


@dataclass(kw_only=True, eq=False)
class ViewContrast(Term):
    """softplus((d(preserve) - d(remove)) / temperature): one view should change a token less than the other.

    d is a divergence from the image at the sampled token; gradient flows through all three log-probs. The mean is over
    the tokens whose entropy under the rollout policy rises most where the picture is removed.

    Args:
        preserve, remove: views with and without what matters.
        temperature: of the contrast.
        top_share: of a response's tokens with a rise that count, the largest relative rises; None: all tokens.
        divergence: "k3", or "k1", as of their second code, in which the image's log-prob cancels.
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
        compared = (IMAGE, self.remove) if self.top_share else ()
        return Needs(
            now=frozenset({(self.preserve, "logprobs"), (self.remove, "logprobs")}),
            old=frozenset((view, "entropy") for view in compared),
        )

    def choose(self, batch: RolloutBatch) -> TokenChoice:
        mask = batch.response_mask
        gated = mask & ((batch.advantages > 0) | (self.gate == "all"))
        if self.top_share is None:
            return gated
        clean, removed = (look(batch, {}, v, "old", "entropy") for v in (IMAGE, self.remove))
        return gated & largest_rises(clean, removed, mask, self.top_share, rounds_up=self.rounds_up)

    def __call__(self, batch: RolloutBatch, scores: TokenScores) -> TokenValues:
        image, kept, lost = (scores[v].logprobs for v in (IMAGE, self.preserve, self.remove))
        return softplus(contrast_margin(image, kept, lost, self.divergence) / self.temperature)
