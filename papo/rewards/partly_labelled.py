"""A reward for data of which only a part has a known answer."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from papo.types import Problem, RewardFunction, Rewards, derive_seed


class PartlyLabelled:
    """Another reward, known for a share of the problems; responses to the others earn 0.

    All responses to an unlabelled problem earn the same, so their advantages are 0: only terms that
    need no answer (perception KL, entropies, reference KL) learn from them. Whether a problem is
    labelled depends on its id alone. `correct` and the components stay those of the whole reward, since
    metrics read them; `known` says on which of them nothing may be trained. What can only act on every
    verdict (`objective.gate=correct`, dynamic sampling) `train.py` refuses.

    Args:
        reward: of the labelled problems.
        labelled_share: of the problems, 0 to 1.

    Raises:
        ValueError: the share is none.
    """

    def __init__(self, *, reward: RewardFunction, labelled_share: float) -> None:
        if not 0.0 <= labelled_share <= 1.0:
            raise ValueError(
                "the share of problems with a known answer lies between 0 and 1; "
                f"got {labelled_share}. Set reward.labelled_share."
            )
        self.labelled_share = labelled_share
        self.reward = reward
        self.flags_claims = bool(getattr(reward, "flags_claims", False))

    def __call__(self, problems: Sequence[Problem], texts: Sequence[str]) -> Rewards:
        """Returns the rewards, with the component `labelled`: 1 where the answer is known."""
        rewards = self.reward(problems, texts)
        known = torch.tensor([self.is_labelled(problem) for problem in problems])
        labelled = known.float()
        return replace(
            rewards,
            total=rewards.total * labelled,
            known=known,
            components={**rewards.components, "labelled": labelled},
        )

    def is_labelled(self, problem: Problem) -> bool:
        return derive_seed("labelled", problem.id) % 1_000_000 < self.labelled_share * 1_000_000

    def close(self) -> None:
        """Ends what the reward has started."""
        if hasattr(self.reward, "close"):
            self.reward.close()
