"""Graded groups before they become a batch: what dynamic sampling keeps, drops and puts together."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from papo.types import PromptGroup, Responses, Rewards


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draft:
    """Prompts with their graded responses, G contiguous rows per group."""

    groups: tuple[PromptGroup, ...]
    responses: Responses
    rewards: Rewards

    @property
    def num_responses(self) -> int:
        return self.responses.mask.shape[0] // len(self.groups)

    def mean_accuracies(self) -> Tensor:
        """The share of correct responses of each group."""
        return self.rewards.correct.float().reshape(len(self.groups), -1).mean(dim=1)

    def select(self, kept: Sequence[int]) -> "Draft":
        """The groups at the given indices, in that order; timeouts stay counted where they happened."""
        num_responses = self.num_responses
        rows = torch.tensor(
            [i * num_responses + j for i in kept for j in range(num_responses)], dtype=torch.long
        )
        responses, rewards = self.responses, self.rewards
        return Draft(
            groups=tuple(self.groups[i] for i in kept),
            responses=Responses(
                ids=responses.ids[rows],
                mask=responses.mask[rows],
                logprobs=responses.logprobs[rows],
                finished=responses.finished[rows],
                texts=tuple(responses.texts[int(row)] for row in rows),
            ),
            rewards=Rewards(
                total=rewards.total[rows],
                correct=rewards.correct[rows],
                components={name: values[rows] for name, values in rewards.components.items()},
                timeouts=rewards.timeouts,
            ),
        )


def concatenate(drafts: Sequence[Draft]) -> Draft:
    """One draft after another, padded to the longest response."""
    if len(drafts) == 1:
        return drafts[0]
    longest = max(draft.responses.mask.shape[1] for draft in drafts)

    def padded(name: str) -> Tensor:
        parts = [getattr(draft.responses, name) for draft in drafts]
        return torch.cat(
            [torch.nn.functional.pad(part, (0, longest - part.shape[1])) for part in parts]
        )

    return Draft(
        groups=tuple(group for draft in drafts for group in draft.groups),
        responses=Responses(
            ids=padded("ids"),
            mask=padded("mask"),
            logprobs=padded("logprobs"),
            finished=torch.cat([draft.responses.finished for draft in drafts]),
            texts=tuple(text for draft in drafts for text in draft.responses.texts),
        ),
        rewards=Rewards(
            total=torch.cat([draft.rewards.total for draft in drafts]),
            correct=torch.cat([draft.rewards.correct for draft in drafts]),
            components={
                name: torch.cat([draft.rewards.components[name] for draft in drafts])
                for name in drafts[0].rewards.components
            },
            timeouts=sum(draft.rewards.timeouts for draft in drafts),
        ),
    )
