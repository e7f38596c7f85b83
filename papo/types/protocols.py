"""How the parts meet. Each Protocol is implemented in the room of its name and composed in conf/."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from PIL.Image import Image
from torch import Tensor

from papo.types.problem import Problem, PromptGroup
from papo.types.records import GradedAnswer
from papo.types.rollout import MinibatchCounts, Responses, Rewards, RolloutBatch, TokenScores

ProcessImages = Callable[[Sequence[Image]], Float[Tensor, "patch pixel"]]
"""Turns raw pictures into patches, as those of a prompt are."""


@runtime_checkable
class ProblemSource(Protocol):
    """An indexable data set. Reading an item may decode images; the length is known at once."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Problem: ...


@runtime_checkable
class Policy(Protocol):
    """A vision-language model that can read prompts and score responses."""

    def encode(self, problems: Sequence[Problem]) -> tuple[PromptGroup, ...]:
        """Tokenises each prompt and processes each image once."""
        ...

    def score(
        self,
        groups: Sequence[PromptGroup],
        response_ids: Int[Tensor, "rollout token"],
        response_mask: Bool[Tensor, "rollout token"],
        *,
        views: Sequence[str] = ...,
        full_vocabulary: bool = ...,
    ) -> TokenScores:
        """Scores the G contiguous responses of each group: one pass for each view, the image alone by default.

        With `full_vocabulary` also exact entropies and, where the image is among the views, the exact KL
        from it. Gradient flows wherever grad mode is on.
        """
        ...


@runtime_checkable
class ImageMask(Protocol):
    """Hides part of every image of a prompt. Deterministic given the generator's state."""

    def __call__(
        self,
        group: PromptGroup,
        generator: torch.Generator,
        process_images: ProcessImages,
    ) -> Float[Tensor, "patch pixel"]:
        """Returns the patches of the masked images, shaped like `group.patches`.

        `process_images` turns raw pictures into patches, for masks that act on the raw picture.
        """
        ...


@runtime_checkable
class AnnealedMask(Protocol):
    """A mask that changes over the run; a view asks for that of its moment."""

    def at(self, progress: float) -> ImageMask:
        """Returns the mask at a share of the run that is done, 0 to 1."""
        ...


@runtime_checkable
class RolloutEngine(Protocol):
    """Samples G responses to each prompt."""

    def follow(self, source: Any, version: str) -> None:
        """Called on all ranks before sampling with other weights; an engine that reads the policy's own does nothing.

        Args:
            source: a `papo.rollout.WeightSource`.
            version: names the weights within the run; equal ones are equal weights.
        """
        ...

    def sample(
        self, groups: Sequence[PromptGroup], num_responses: int, seeds: Sequence[int]
    ) -> Responses:
        """Rows are `num_responses` contiguous responses per group; one seed per group.

        Equal seeds give equal responses, whatever else is in the call; of a server they do up to its rounding.
        """
        ...


@runtime_checkable
class RewardFunction(Protocol):
    """Grades responses. Model text is hostile input: implementations never evaluate it."""

    def __call__(self, problems: Sequence[Problem], texts: Sequence[str]) -> Rewards:
        """One problem and one decoded response per rollout, in the same order."""
        ...


@runtime_checkable
class Grader(Protocol):
    """Says which answers are right, for evaluation. Model text is hostile input here too."""

    def __call__(
        self, problems: Sequence[Problem], texts: Sequence[str]
    ) -> tuple[GradedAnswer, ...]:
        """One problem and one decoded response per entry, in the same order."""
        ...


@runtime_checkable
class Objective(Protocol):
    """The training objective as a sum of named, weighted terms."""

    def __call__(
        self,
        batch: RolloutBatch,
        scores: TokenScores,
        *,
        minibatch: RolloutBatch | MinibatchCounts,
        progress: float,
    ) -> dict[str, Tensor]:
        """Terms of `batch`, normalised by the counts of the whole `minibatch` it was cut from.

        Summed over the micro-batches of a minibatch, each term is the minibatch's.
        `progress` runs from 0 to 1 over the training run (annealed weights read it).
        """
        ...
