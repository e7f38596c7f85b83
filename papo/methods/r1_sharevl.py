"""R1-ShareVL's advantages (Yao et al., arXiv:2505.16673, code HJYao00/R1-ShareVL@da7388e)."""

from collections.abc import Mapping
from dataclasses import dataclass

from papo.functional import standardised
from papo.objective import Blocks, Credit, SettingError, TokenValues
from papo.types import Needs, RolloutBatch


@dataclass(kw_only=True, eq=False)
class ShareGRPO(Credit):
    """The z-score of a reward among all responses of the group, plus that among those to the same variant.

    Args:
        variants: of a prompt; the responses to each are an equal block of the group, in order.
        epsilon: added to standard deviations.
        within: weight of the comparison inside a variant; their code has it 0 for a response that is trained under
            another variant than the one that it was sampled from.
        copies: rows that each response counts as among all, in the unbiased deviation; their code trains, and counts,
            each under every variant.

    Raises:
        SettingError: fewer variants than one, or copies than one.
    """

    variants: int
    epsilon: float
    within: float = 1.0
    copies: int = 1

    def __post_init__(self) -> None:
        self.check_number("epsilon", "within")
        for name in ("variants", "copies"):
            if (value := getattr(self, name)) < 1:
                raise SettingError(f"{{{name}}} is 1 or more; got {value}")

    @property
    def needs(self) -> Needs:
        return Needs()

    def check_group(self, sampled: Mapping[str, int]) -> None:
        if len(sampled) != self.variants or len(set(sampled.values())) > 1:
            told = ", ".join(f"{count} of {view}" for view, count in sampled.items())
            raise SettingError(
                f"a group has equally many responses to each variant; got {{variants}}={self.variants} and {told}. Set "
                "objective.sampled_from, or rollout.num_responses"
            )

    def __call__(self, batch: RolloutBatch, blocks: Blocks, *, progress: float) -> TokenValues:
        assert batch.rewards is not None, "a rollout has rewards"
        size = batch.num_responses
        among_all = standardised(batch.rewards, size, epsilon=self.epsilon, copies=self.copies)
        inside = standardised(batch.rewards, size // self.variants, epsilon=self.epsilon)
        return (among_all + self.within * inside)[:, None] * batch.response_mask
