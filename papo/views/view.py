"""What is shown of a problem: the interface of a view, and the plain one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from papo.types import Problem, ProblemSource, PromptGroup


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Item:
    """One problem of a benchmark, and where it stands.

    Attributes:
        benchmark: key of the benchmark; "training" in a training run.
        problems: all of its problems, read lazily; for views that need another item's picture.
        index: position of this one among them.
        problem: `problems[index]`, already read.
        seed: of the problem's draws; derive further seeds from it. In an evaluation the same in every view.
        group: the encoded prompt, where it is there already.
        progress: share of the training run that is done, 0 to 1; 0 in an evaluation.
    """

    benchmark: str
    problems: ProblemSource
    index: int
    problem: Problem
    seed: int
    group: PromptGroup | None = None
    progress: float = 0.0

    def encoded(self, policy: "ReadingPolicy") -> PromptGroup:
        """Returns the prompt as it is."""
        if self.group is not None:
            return self.group
        (group,) = policy.encode([self.problem])
        return group


@runtime_checkable
class ReadingPolicy(Protocol):
    """What a view needs of a policy."""

    def encode(self, problems: Sequence[Problem]) -> tuple[PromptGroup, ...]: ...

    def process_images(self, images: Sequence[Image]) -> Float[Tensor, "patch pixel"]: ...


@runtime_checkable
class View(Protocol):
    """A way of showing problems, e.g. with the image blanked.

    `name` stands in `ResponseRecord.view`; "image" is the plain view.
    """

    @property
    def name(self) -> str: ...

    @property
    def seed(self) -> int:
        """Of what it draws; 0 where it draws nothing."""
        ...

    @property
    def hides(self) -> bool:
        """Whether it means to change every picture: then a training run refuses it where it changes none."""
        ...

    def __call__(
        self, item: Item, policy: ReadingPolicy, *, num_responses: int
    ) -> tuple[PromptGroup, ...]:
        """Returns the prompts to sample from; response j answers prompt j modulo their number.

        One prompt for most views; a bank of K masks returns min(K, num_responses). Empty where the
        problem cannot be shown this way (no image to remove, no partner to swap with): it then has
        no record in this view, and is counted. What is hidden stands in `PromptGroup.patches`.
        Answers are graded against `item.problem`, whatever the prompt's own problem is.
        """
        ...


class ImageView:
    """The problem as it is."""

    name = "image"
    seed = 0
    hides = False

    def __call__(
        self, item: Item, policy: ReadingPolicy, *, num_responses: int
    ) -> tuple[PromptGroup, ...]:
        return (item.encoded(policy),)
