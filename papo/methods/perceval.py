"""Perceval's penalty (arXiv:2604.24583, code RUCAIBox/Perceval@4ef2db6)."""

from dataclasses import dataclass

from papo.objective import Blocks, Credit, SettingError, TokenValues
from papo.types import Needs, RolloutBatch


@dataclass(kw_only=True, eq=False)
class Perceval(Credit):
    """Tokens of claims that the reward's judge calls false lose a share of |A|, whichever sign A has.

    Args:
        penalty: that share, above 0 (alpha).

    Raises:
        SettingError: another penalty.
    """

    penalty: float

    def __post_init__(self) -> None:
        if not 0.0 < self.penalty < float("inf"):
            raise SettingError(f"{{penalty}} is a share of |A|, above 0; got {self.penalty}")

    @property
    def needs(self) -> Needs:
        return Needs(flagged=True)

    def __call__(self, batch: RolloutBatch, blocks: Blocks, *, progress: float) -> TokenValues:
        assert batch.flagged is not None, "the objective reads a credit whose needs are met"
        return batch.advantages - self.penalty * batch.advantages.abs() * batch.flagged
