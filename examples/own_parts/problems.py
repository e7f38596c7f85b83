"""A data source of one's own: anything with a length whose items are problems."""

from PIL import Image, ImageDraw

from papo.types import Problem, derive_seed


class Dots:
    """Pictures of one to nine dots.

    Args:
        size: how many problems there are.
        seed: of their pictures.
    """

    def __init__(self, *, size: int, seed: int) -> None:
        self.size, self.seed = size, seed

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Problem:
        count = derive_seed(self.seed, "dots", index) % 9 + 1
        picture = Image.new("RGB", (84, 56), "white")
        for dot in range(count):
            x, y = 8 + 16 * (dot % 5), 16 + 20 * (dot // 5)
            ImageDraw.Draw(picture).ellipse((x, y, x + 8, y + 8), fill="red")
        return Problem(
            id=str(index),
            question="<image>How many dots are there?",
            answer=str(count),
            images=(picture,),
            source="dots",
        )
