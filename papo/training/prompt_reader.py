"""From a position in the stream to an encoded prompt with its views, on whichever rank asks."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float, Int
from PIL.Image import Image
from torch import Tensor

from papo.training.draft import DrawnPrompt
from papo.training.encoded_ahead import EncodedAhead
from papo.training.prompts import PromptStream
from papo.types import Policy, Problem, PromptGroup, Quantity, TokenScores, derive_seed
from papo.views import MASKED, Item, View, changed_fraction

PROMPTS_AHEAD = 128
"""Prompts that are held before they are asked for: at most 3 GB of patches at the published size of pictures."""


class ActingPolicy(Policy, Protocol):
    """A policy that also says where it lives and how it reads, and lets masks process pictures."""

    @property
    def encoder(self) -> Any:
        """What reads prompts; its `tokenizer` also tells the text of every token."""
        ...

    @property
    def device(self) -> torch.device: ...

    @property
    def shares_prefix(self) -> bool:
        """Whether scoring reads each prompt once for all its responses."""
        ...

    def process_images(self, images: Sequence[Image]) -> Float[Tensor, "patch pixel"]: ...

    def measure(
        self,
        groups: Sequence[PromptGroup],
        response_ids: Int[Tensor, "rollout token"],
        response_mask: Bool[Tensor, "rollout token"],
        *,
        wanted: Collection[tuple[str, Quantity]],
    ) -> TokenScores:
        """What credits read of responses, without gradient."""
        ...

    def packed(self, group: PromptGroup) -> PromptGroup:
        """The group with its patches in less memory, scored the same."""
        ...


class PromptReader:
    """Reads the prompts of a rollout; what is read at a place depends on the place alone.

    Args:
        policy: encodes.
        prompts: the stream of problems.
        views: further ways to show each prompt, by name; those that something looks at.
        num_responses: G.
        workers: threads that encode; 0: none.
        packs: whether patches are held as levels from when the views are made.
    """

    def __init__(
        self,
        *,
        policy: ActingPolicy,
        prompts: PromptStream,
        views: Mapping[str, View],
        num_responses: int,
        workers: int = 0,
        packs: bool = False,
    ) -> None:
        self.packs = packs
        self.policy = policy
        self.encoded = EncodedAhead(
            policy=policy, prompts=prompts, workers=workers, most=PROMPTS_AHEAD
        )
        self.prompts = prompts
        self.views = views
        self.num_responses = num_responses

    def plain(self, positions: Sequence[int]) -> list[PromptGroup]:
        """Returns the prompts at these positions as they are: no view, which may ask weights that are to come."""
        groups = [group for _, group in self.encoded.take(positions)]
        return [self.policy.packed(group) for group in groups] if self.packs else groups

    def read(
        self,
        step: int,
        round_index: int,
        position: int,
        indices: Sequence[int],
        *,
        progress: float,
    ) -> tuple[list[Problem], list[DrawnPrompt]]:
        """Returns prompts of a round of a rollout, with the problems that they put.

        Args:
            step: the number of the rollout.
            round_index: of dynamic sampling.
            position: in the stream, of the round's first prompt.
            indices: which of the round's prompts.
            progress: share of the run that is done.
        """
        encoded = self.encoded.take([position + index for index in indices])
        drawn = []
        for index, (_, group) in zip(indices, encoded, strict=True):
            # Views may ask the policy itself, so they are made when the prompt is read, by no other thread.
            place = (step, round_index, index)
            views = {
                name: self._show(name, group, place, position + index, progress)
                for name in self.views
            }
            shown = replace(group, views=views)
            drawn.append(
                DrawnPrompt(
                    position=position + index,
                    round_index=round_index,
                    index=index,
                    num_tokens=group.prompt_ids.shape[0],
                    changed={name: changed_fraction(group, seen) for name, seen in views.items()},
                    has_picture=group.patches is not None,
                    group=self.policy.packed(shown) if self.packs else shown,
                )
            )
        return [problem for problem, _ in encoded], drawn

    def here(self, prompt: DrawnPrompt, step: int, *, progress: float) -> DrawnPrompt:
        """The prompt with its group, read again where another rank has read it."""
        if prompt.group is not None:
            return prompt
        first = prompt.position - prompt.index
        _, [again] = self.read(step, prompt.round_index, first, [prompt.index], progress=progress)
        return again

    def _show(
        self,
        name: str,
        group: PromptGroup,
        place: tuple[int, int, int],
        position: int,
        progress: float,
    ) -> tuple[PromptGroup, ...]:
        view = self.views[name]
        # The masks of a run are those that they were before there were other views.
        what = ("mask",) if name == MASKED else ("view", name)
        item = Item(
            benchmark="training",
            problems=self.prompts.source,
            index=self.prompts.index(position),
            problem=group.problem,
            seed=derive_seed(view.seed, *what, *place),
            group=group,
            progress=progress,
        )
        # What cannot be shown in this way is shown as it is: its KL from the image is 0.
        return view(item, self.policy, num_responses=self.num_responses) or (group,)
