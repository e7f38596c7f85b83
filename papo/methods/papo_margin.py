"""ContextRL's bounded margin (arXiv:2606.17053), between two views of a prompt in place of two pictures."""

from dataclasses import dataclass
from typing import get_args

from torch.nn.functional import logsigmoid

from papo.objective import Number, PolicyOfView, Term, TokenValues, look, view_needs
from papo.types import IMAGE, Needs, RolloutBatch, TokenScores


@dataclass(kw_only=True, eq=False)
class ViewMargin(Term):
    """log sigmoid(m): how surely a response says which of two views it was written for; at most 0, nats.

    m is log pi(response | image) - log pi(response | view), summed over its tokens and cut to +-bound: a response whose
    margin has reached the bound pulls no further. The number stands at each of the response's tokens.

    Args:
        view: name of the view, without what matters.
        policy: whose view, see `papo.objective.term.look`.
        bound: of the margin, nats.
    """

    view: str
    policy: str
    bound: Number

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_choice("policy", get_args(PolicyOfView))
        self.check_number("bound", above=0.0)

    @property
    def needs(self) -> Needs:
        return view_needs(self.view, self.policy, "logprobs")

    def __call__(self, batch: RolloutBatch, scores: TokenScores) -> TokenValues:
        rise = scores[IMAGE].logprobs - look(batch, scores, self.view, self.policy)
        margin = rise.sum(1, keepdim=True)  # scores are exactly 0 at padding
        return logsigmoid(margin.clamp(-self.bound, self.bound)).expand_as(rise)
