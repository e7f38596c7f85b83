"""Graded groups before they become a batch: what dynamic sampling keeps, drops and puts together."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from papo.types import PromptGroup, Responses, Rewards


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DrawnPrompt:
    """A prompt and what it takes to read it again.

    Attributes:
        position: in the stream of problems.
        round_index, index: the round of dynamic sampling, and its place there: its mask is drawn from them.
        num_tokens: of the prompt, image tokens included.
        changed: share of the patches of its images that each view changed; None without images.
        has_picture: whether there is any.
        group: the encoded prompt; None where another rank has it.
    """

    position: int
    round_index: int
    index: int
    num_tokens: int
    changed: Mapping[str, float | None]
    has_picture: bool
    group: PromptGroup | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draft:
    """Prompts with their graded responses, G contiguous rows per prompt."""

    prompts: tuple[DrawnPrompt, ...]
    responses: Responses
    rewards: Rewards

    @property
    def num_responses(self) -> int:
        return self.responses.mask.shape[0] // len(self.prompts)

    @property
    def groups(self) -> tuple[PromptGroup, ...]:
        """The encoded prompts; all are on this rank."""
        groups = tuple(prompt.group for prompt in self.prompts if prompt.group is not None)
        assert len(groups) == len(self.prompts), "prompts of other ranks are read again first"
        return groups

    def mean_accuracies(self) -> Float[Tensor, " prompt"]:
        """The share of correct responses of each group."""
        return self.rewards.correct.float().reshape(len(self.prompts), -1).mean(dim=1)

    def num_tokens(self) -> list[int]:
        """The tokens of every response."""
        counts: list[int] = self.responses.mask.sum(dim=1).tolist()
        return counts

    def select(self, kept: Sequence[int]) -> "Draft":
        """The groups at the given indices, in that order; timeouts stay counted where they happened."""
        num_responses = self.num_responses
        rows = torch.tensor(
            [i * num_responses + j for i in kept for j in range(num_responses)], dtype=torch.long
        )
        rewards = self.rewards
        return Draft(
            prompts=tuple(self.prompts[i] for i in kept),
            responses=select_responses(self.responses, rows),
            rewards=Rewards(
                total=rewards.total[rows],
                correct=rewards.correct[rows],
                components={name: values[rows] for name, values in rewards.components.items()},
                timeouts=rewards.timeouts,
                flawed=None
                if rewards.flawed is None
                else tuple(rewards.flawed[i] for i in rows.tolist()),
                known=_rows(rewards.known, rows),
            ),
        )


def select_responses(responses: Responses, rows: Int[Tensor, " row"]) -> Responses:
    """The responses at some rows, in that order."""
    return Responses(
        ids=responses.ids[rows],
        mask=responses.mask[rows],
        logprobs=responses.logprobs[rows],
        finished=responses.finished[rows],
        texts=tuple(responses.texts[int(row)] for row in rows),
        behaviour_logprobs=_rows(responses.behaviour_logprobs, rows),
        from_server=_rows(responses.from_server, rows),
    )


def _rows(values: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if values is None else values[rows]


def concatenate_responses(parts: Sequence[Responses]) -> Responses:
    """The rows of one after those of another, padded to the longest response; one engine wrote all of them."""
    longest = max(part.mask.shape[1] for part in parts)

    def padded(name: str) -> Tensor | None:
        values = [getattr(part, name) for part in parts]
        if values[0] is None:
            return None
        return torch.cat(
            [torch.nn.functional.pad(each, (0, longest - each.shape[1])) for each in values]
        )

    served = [part.from_server for part in parts if part.from_server is not None]
    tokenwise: dict[str, Any] = {
        name: padded(name) for name in ("ids", "mask", "logprobs", "behaviour_logprobs")
    }
    return Responses(
        finished=torch.cat([part.finished for part in parts]),
        texts=tuple(text for part in parts for text in part.texts),
        from_server=torch.cat(served) if served else None,
        **tokenwise,
    )


def concatenate(drafts: Sequence[Draft]) -> Draft:
    """One draft after another, padded to the longest response."""
    if len(drafts) == 1:
        return drafts[0]
    known = [draft.rewards.known for draft in drafts if draft.rewards.known is not None]
    return Draft(
        prompts=tuple(prompt for draft in drafts for prompt in draft.prompts),
        responses=concatenate_responses([draft.responses for draft in drafts]),
        rewards=Rewards(
            total=torch.cat([draft.rewards.total for draft in drafts]),
            correct=torch.cat([draft.rewards.correct for draft in drafts]),
            components={
                name: torch.cat([draft.rewards.components[name] for draft in drafts])
                for name in drafts[0].rewards.components
            },
            timeouts=sum(draft.rewards.timeouts for draft in drafts),
            # One reward graded all of them.
            flawed=None
            if drafts[0].rewards.flawed is None
            else tuple(spans for draft in drafts for spans in draft.rewards.flawed or ()),
            known=torch.cat(known) if known else None,
        ),
    )


def to_plain(draft: Draft) -> dict[str, Any]:
    """A draft as other ranks receive it: tensors and plain values, without the encoded prompts."""
    responses, rewards = draft.responses, draft.rewards
    return {
        "prompts": [asdict(replace(prompt, group=None)) for prompt in draft.prompts],
        "responses": {field.name: getattr(responses, field.name) for field in fields(responses)},
        "rewards": {
            **{field.name: getattr(rewards, field.name) for field in fields(rewards)},
            "components": dict(rewards.components),
        },
    }


def from_plain(plain: Mapping[str, Any]) -> Draft:
    """The draft that another rank sent."""
    return Draft(
        prompts=tuple(DrawnPrompt(**prompt) for prompt in plain["prompts"]),
        responses=Responses(**plain["responses"]),
        rewards=Rewards(**plain["rewards"]),
    )
