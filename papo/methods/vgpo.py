"""VGPO (arXiv:2604.09349, code wzb-bupt/VGPO@d773c71)."""

from dataclasses import dataclass

from papo.functional import SCHEDULES, compensated, min_max, response_factors, token_factors
from papo.objective import Blocks, Credit, Number, TokenValues, old, old_needs
from papo.types import IMAGE, Needs, RolloutBatch


@dataclass(kw_only=True, eq=False)
class VGPO(Credit):
    """Tokens and responses whose last hidden states look more like the picture's learn more.

    Args:
        compensation: the visual score of a response's last token is raised by at most this share of it.
        gate_start: share of a response behind which scores are raised,
        gate_share: and of the tokens there, those with the largest scores, the share that is raised.
        token_least: a token's factor is at least this,
        token_most: and at most this; 1 and 1: no factor.
        response_least: a response's factor is at least this,
        response_most: and at most this.
        schedule: how the compensation grows over a response, a key of papo.functional.SCHEDULES.
        score_scope: where the scores of tokens are compared (code: micro-batches, as for `scope`).
        scope: where responses are compared.
        with_zero: 0 is among the cosines (code: that of padding, wherever a micro-batch has any).
    """

    compensation: Number
    gate_start: Number
    gate_share: Number
    token_least: Number
    token_most: Number
    response_least: Number
    response_most: Number
    schedule: str = "linear"
    score_scope: str = "group"
    scope: str = "group"
    with_zero: bool = True

    def __post_init__(self) -> None:
        self.check_share("gate_share")
        self.check_number("gate_start", "token_least", "response_least", most=1.0)
        self.check_number("token_most", "response_most", least=1.0)
        self.check_number("compensation")
        self.check_choice("schedule", *SCHEDULES)
        self.check_scopes("score_scope", "scope")

    @property
    def needs(self) -> Needs:
        return old_needs((IMAGE, "image_cosine"))

    def __call__(self, batch: RolloutBatch, blocks: Blocks, *, progress: float) -> TokenValues:
        mask, gate = batch.response_mask, (self.gate_start, self.gate_share)
        cosines, rows = old(batch, IMAGE, "image_cosine"), blocks.rows(self.score_scope)
        scores = min_max(cosines, mask, rows=rows, epsilon=1e-8, with_zero=self.with_zero)
        raised = compensated(scores, mask, self.compensation, self.schedule, *gate)
        shares = min_max(raised, mask, epsilon=1e-8)
        tokens = token_factors(shares, mask, self.token_least, self.token_most)
        ends = (self.response_least, self.response_most)
        responses = response_factors(shares.sum(1), blocks.rows(self.scope), *ends)
        return batch.advantages * tokens * responses[:, None]
