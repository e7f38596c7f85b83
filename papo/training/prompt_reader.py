"""From a position in the stream to an encoded prompt with its masked view, on whichever rank asks."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from papo.masking import masked_fraction
from papo.training.draft import DrawnPrompt
from papo.training.encoded_ahead import EncodedAhead
from papo.training.prompts import PromptStream
from papo.types import ImageMask, Policy, Problem, PromptGroup, derive_seed

PROMPTS_AHEAD = 128
"""Prompts that are held before they are asked for: at most 3 GB of patches at the published size of pictures."""


class ActingPolicy(Policy, Protocol):
    """A policy that also says where it lives and how it reads, and lets masks process pictures."""

    @property
    def device(self) -> torch.device: ...

    @property
    def shares_prefix(self) -> bool:
        """Whether scoring reads each prompt once for all its responses."""
        ...

    def process_images(self, images: Sequence[Image]) -> Float[Tensor, "patch pixel"]: ...

    def packed(self, group: PromptGroup) -> PromptGroup:
        """The group with its patches in less memory, scored the same."""
        ...


class PromptReader:
    """Reads the prompts of a rollout; what is read at a place depends on the place alone.

    Args:
        policy: encodes.
        prompts: the stream of problems.
        image_mask: hides part of each image; its attribute `seed`, if any, seeds the masks. None where
            nothing looks at the masked image.
        workers: threads that encode; 0: none.
        packs: whether patches are held as levels from when the masked view is made.
    """

    def __init__(
        self,
        *,
        policy: ActingPolicy,
        prompts: PromptStream,
        image_mask: ImageMask | None,
        workers: int = 0,
        packs: bool = False,
    ) -> None:
        self.packs = packs
        self.policy = policy
        self.encoded = EncodedAhead(
            policy=policy, prompts=prompts, workers=workers, most=PROMPTS_AHEAD
        )
        self.image_mask = image_mask
        # A mask that draws nothing has no seed.
        self.mask_seed = int(getattr(image_mask, "seed", 0))

    def read(
        self, step: int, round_index: int, position: int, indices: Sequence[int]
    ) -> tuple[list[Problem], list[DrawnPrompt]]:
        """Returns prompts of a round of a rollout, with the problems that they put.

        Args:
            step: the number of the rollout.
            round_index: of dynamic sampling.
            position: in the stream, of the round's first prompt.
            indices: which of the round's prompts.
        """
        encoded = self.encoded.take([position + index for index in indices])
        # Masks may ask the policy itself, so they are made when the prompt is read, by no other thread.
        return [problem for problem, _ in encoded], [
            self._drawn(
                self._with_masked_view(group, step, round_index, index),
                index,
                round_index,
                position,
            )
            for index, (_, group) in zip(indices, encoded, strict=True)
        ]

    def here(self, prompt: DrawnPrompt, step: int) -> DrawnPrompt:
        """The prompt with its group, read again where another rank has read it."""
        if prompt.group is not None:
            return prompt
        first = prompt.position - prompt.index
        _, [again] = self.read(step, prompt.round_index, first, [prompt.index])
        return again

    def _drawn(
        self, group: PromptGroup, index: int, round_index: int, position: int
    ) -> DrawnPrompt:
        return DrawnPrompt(
            position=position + index,
            round_index=round_index,
            index=index,
            num_tokens=group.prompt_ids.shape[0],
            masked_fraction=None if group.masked_patches is None else masked_fraction(group),
            has_picture=group.patches is not None,
            group=self.policy.packed(group) if self.packs else group,
        )

    def _with_masked_view(
        self, group: PromptGroup, step: int, round_index: int, index: int
    ) -> PromptGroup:
        # A prompt without images has no masked view; its two views are one and its KL is 0.
        if group.patches is None or self.image_mask is None:
            return group
        seed = derive_seed(self.mask_seed, "mask", step, round_index, index)
        generator = torch.Generator().manual_seed(seed)
        masked = self.image_mask(group, generator, self.policy.process_images)
        return replace(group, masked_patches=masked)
