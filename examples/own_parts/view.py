"""A view of one's own: a second way to show a prompt, for terms that compare and for evaluations."""

from dataclasses import replace

from PIL import ImageOps

from papo.types import PromptGroup
from papo.views import Item, ReadingPolicy


class Mirrored:
    """Every picture from right to left; counts stay, "left of" does not."""

    name = "mirrored"
    seed = 0
    hides = False  # a symmetric picture is the same

    def __call__(
        self, item: Item, policy: ReadingPolicy, *, num_responses: int
    ) -> tuple[PromptGroup, ...]:
        if not item.problem.images:
            return ()
        mirrored = [ImageOps.mirror(picture) for picture in item.problem.images]
        return (replace(item.encoded(policy), patches=policy.process_images(mirrored)),)
