"""Ways of showing a problem without its picture: removed, or another item's."""

import re
from dataclasses import replace

import numpy as np
from PIL.Image import Image

from papo.data import ProblemError
from papo.types import IMAGE_MARKER, ProblemSource, PromptGroup, derive_seed
from papo.views.view import Item, ReadingPolicy

_MARKER_AND_SPACE = re.compile(rf"[ \t]*{re.escape(IMAGE_MARKER)}[ \t]*")


class RemovedView:
    """No picture at all: its markers are taken out of the question."""

    name = "removed"
    seed = 0
    hides = True

    def __call__(
        self, item: Item, policy: ReadingPolicy, *, num_responses: int
    ) -> tuple[PromptGroup, ...]:
        """Returns the question alone; nothing where it had no picture or nothing is left to ask.

        The prompt that all problems end with is no question: MMMU-Pro asks in the picture.
        """
        question = _MARKER_AND_SPACE.sub(" ", item.problem.question).strip()
        asked = question.removesuffix(getattr(item.problems, "prompt_suffix", "")).strip()
        if not item.problem.images or not asked:
            return ()
        return policy.encode([replace(item.problem, question=question, images=())])


class SwappedView:
    """The pictures of another item of the benchmark, with equally many of them.

    The items stand in a seeded order; each is shown the pictures of the next one, around the end, that
    has equally many and not the same ones. Without repeated pictures this is a derangement: every
    picture is shown once, never with its own question.

    Args:
        seed: of the order.
    """

    name = "swapped"
    hides = True

    def __init__(self, *, seed: int) -> None:
        self.seed = seed
        self._partners: dict[str, _Partners] = {}

    def __call__(
        self, item: Item, policy: ReadingPolicy, *, num_responses: int
    ) -> tuple[PromptGroup, ...]:
        """Returns the question with the partner's pictures; nothing where there is no partner."""
        if not item.problem.images:
            return ()
        if item.benchmark not in self._partners:
            seed = derive_seed(self.seed, "swap", item.benchmark)
            self._partners[item.benchmark] = _Partners(item.problems, seed)
        images = self._partners[item.benchmark].pictures_for(item)
        return () if images is None else policy.encode([replace(item.problem, images=images)])


class _Partners:
    """The seeded order of a benchmark's items, and how many pictures those read so far have."""

    def __init__(self, problems: ProblemSource, seed: int) -> None:
        self.problems = problems
        self.order = np.random.default_rng(seed).permutation(len(problems)).tolist()
        self.places = {index: place for place, index in enumerate(self.order)}
        self.num_images: dict[int, int] = {}

    def pictures_for(self, item: Item) -> tuple[Image, ...] | None:
        own = item.problem.images
        for step in range(1, len(self.order)):
            index = self.order[(self.places[item.index] + step) % len(self.order)]
            if self.num_images.get(index, len(own)) != len(own):
                continue
            images = self._read(index)
            self.num_images[index] = len(images)
            if len(images) == len(own) and not _are_equal(images, own):
                return images
        return None

    def _read(self, index: int) -> tuple[Image, ...]:
        try:
            return self.problems[index].images
        except ProblemError:
            # An item that cannot be read has nothing to lend; the runner names and counts it.
            return ()


def _are_equal(some: tuple[Image, ...], others: tuple[Image, ...]) -> bool:
    return all(
        one.size == other.size and one.convert("RGB").tobytes() == other.convert("RGB").tobytes()
        for one, other in zip(some, others, strict=True)
    )
