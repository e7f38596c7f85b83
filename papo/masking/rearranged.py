"""Views that CPPO and NoisyRollout have beside noise: parts covered, cut out or turned (arXiv:2601.00501, 2504.13055).

As their code has them with torchvision, of which nothing is needed but its formulas.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageEnhance

from papo.masking.picture import PictureMask, require_interval, uniform_number, whole_number


class CropFillMask(PictureMask):
    """Blackens one rectangle whose sides are a share of the picture's (NoisyRollout's alternative to noise).

    Args:
        size: of each side, above 0 to 1.
        seed: as of PictureMask.

    Raises:
        ValueError: another size.
    """

    def __init__(self, *, size: float, seed: int) -> None:
        super().__init__(seed=seed)
        if not 0.0 < size <= 1.0:
            raise ValueError(f"size is a share of each side, above 0 and at most 1; got {size}")
        self.size = size

    def repaint(self, image: Image.Image, generator: torch.Generator) -> Image.Image:
        width, height = self.extent(image)
        left = whole_number(generator, below=image.width - width + 1)
        top = whole_number(generator, below=image.height - height + 1)
        return self.filled(image, left, top)

    def extent(self, image: Image.Image) -> tuple[int, int]:
        """The width and height of the rectangle, pixels."""
        return int(image.width * self.size), int(image.height * self.size)

    def filled(self, image: Image.Image, left: int, top: int) -> Image.Image:
        """Returns the picture with the rectangle at a place."""
        width, height = self.extent(image)
        filled = image.copy()
        filled.paste((0, 0, 0), (left, top, left + width, top + height))
        return filled


class OcclusionMask(PictureMask):
    """Covers a picture with rectangles of noise; CPPO's 50 of 5 to 15 % of each side cover about a third.

    Args:
        rectangles: how many.
        size: of each side, an interval of shares.
        seed: as of PictureMask.

    Raises:
        ValueError: no rectangle, or no interval.
    """

    def __init__(self, *, rectangles: int, size: Sequence[float], seed: int) -> None:
        super().__init__(seed=seed)
        if rectangles < 1:
            raise ValueError(
                f"rectangles is how many cover the picture, 1 or more; got {rectangles}"
            )
        self.rectangles = rectangles
        self.size = require_interval("size", size, most=1.0)

    def repaint(self, image: Image.Image, generator: torch.Generator) -> Image.Image:
        covered = image.copy()
        for _ in range(self.rectangles):
            shares = [uniform_number(generator, *self.size) for _ in range(2)]
            width, height = self.extent(image, *shares)
            left = whole_number(generator, below=image.width - width + 1)
            top = whole_number(generator, below=image.height - height + 1)
            levels = torch.randint(
                256, (height, width, 3), generator=generator, device=generator.device
            )
            noise = Image.fromarray(levels.to(torch.uint8).cpu().numpy())
            covered.paste(noise, (left, top))
        return covered

    @staticmethod
    def extent(image: Image.Image, width: float, height: float) -> tuple[int, int]:
        """The width and height of a rectangle of these shares of the sides, pixels."""
        return max(1, int(width * image.width)), max(1, int(height * image.height))


class ZoomCropMask(PictureMask):
    """A part of the picture, enlarged to its size; what is outside is gone.

    Args:
        size: of each side of the part, an interval of shares (CPPO: 0.6 to 0.7).
        seed: as of PictureMask.

    Raises:
        ValueError: no interval.
    """

    def __init__(self, *, size: Sequence[float], seed: int) -> None:
        super().__init__(seed=seed)
        self.size = require_interval("size", size, most=1.0)

    def repaint(self, image: Image.Image, generator: torch.Generator) -> Image.Image:
        width, height = self.extent(image, uniform_number(generator, *self.size))
        left = whole_number(generator, below=image.width - width + 1)
        top = whole_number(generator, below=image.height - height + 1)
        return self.enlarged(image, (left, top, left + width, top + height))

    @staticmethod
    def extent(image: Image.Image, share: float) -> tuple[int, int]:
        """The width and height of a part, pixels."""
        return max(1, int(image.width * share)), max(1, int(image.height * share))

    @staticmethod
    def enlarged(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
        """Returns the part of the picture in a box, as large as the picture."""
        return image.crop(box).resize(image.size, Image.Resampling.BILINEAR)


class ColourJitterMask(PictureMask):
    """Other brightness, contrast and saturation, in an order that is drawn too.

    Args:
        brightness, contrast, saturation: intervals of factors, 1 leaves the picture.
        seed: as of PictureMask.

    Raises:
        ValueError: no interval.
    """

    def __init__(
        self,
        *,
        brightness: Sequence[float],
        contrast: Sequence[float],
        saturation: Sequence[float],
        seed: int,
    ) -> None:
        super().__init__(seed=seed)
        most = float("inf")
        self.factors = (
            (ImageEnhance.Brightness, require_interval("brightness", brightness, most=most)),
            (ImageEnhance.Contrast, require_interval("contrast", contrast, most=most)),
            (ImageEnhance.Color, require_interval("saturation", saturation, most=most)),
        )

    def repaint(self, image: Image.Image, generator: torch.Generator) -> Image.Image:
        order = torch.randperm(len(self.factors), generator=generator, device=generator.device)
        for place in order.tolist():
            enhance, interval = self.factors[place]
            image = enhance(image).enhance(uniform_number(generator, *interval))
        return image


class RotationMask(PictureMask):
    """The picture turned about its middle, black where nothing is left of it.

    Args:
        degrees: at most, to either side.
        seed: as of PictureMask.

    Raises:
        ValueError: no angle above 0 to 180.
    """

    def __init__(self, *, degrees: float, seed: int) -> None:
        super().__init__(seed=seed)
        if not 0.0 < degrees <= 180.0:
            raise ValueError(f"degrees is an angle above 0 and at most 180; got {degrees}")
        self.degrees = float(degrees)

    def repaint(self, image: Image.Image, generator: torch.Generator) -> Image.Image:
        return image.rotate(uniform_number(generator, -self.degrees, self.degrees))


class PerspectiveMask(PictureMask):
    """The picture seen from aside: each corner moves inwards; black where nothing is left of it.

    Args:
        distortion: how far at most, as a share of half a side, above 0 to 1.
        probability: of a change at all.
        seed: as of PictureMask.

    Raises:
        ValueError: a setting is out of its range.
    """

    def __init__(self, *, distortion: float, probability: float, seed: int) -> None:
        super().__init__(seed=seed)
        for name, value in (("distortion", distortion), ("probability", probability)):
            if not 0.0 < value <= 1.0:
                raise ValueError(f"{name} is above 0 and at most 1; got {value}")
        self.distortion = distortion
        self.probability = probability

    def repaint(self, image: Image.Image, generator: torch.Generator) -> Image.Image:
        if uniform_number(generator, 0.0, 1.0) >= self.probability:
            return image
        right, bottom = image.width - 1, image.height - 1
        corners = [(0, 0), (right, 0), (right, bottom), (0, bottom)]
        moved = []
        for x, y in corners:
            inwards = [
                whole_number(generator, below=1 + int(self.distortion * (side // 2)))
                for side in image.size
            ]
            moved.append((abs(x - inwards[0]), abs(y - inwards[1])))
        coefficients = perspective_coefficients(corners, moved)
        return image.transform(
            image.size, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BILINEAR
        )


def perspective_coefficients(
    corners: Sequence[tuple[int, int]], moved: Sequence[tuple[int, int]]
) -> tuple[float, ...]:
    """Returns a to h of (x, y) -> ((ax + by + c), (dx + ey + f)) / (gx + hy + 1), which takes each moved corner
    back to where it was: PIL asks for every pixel of the new picture where it comes from.
    """
    rows, wanted = [], []
    for (x, y), (to_x, to_y) in zip(corners, moved, strict=True):
        rows.append([to_x, to_y, 1, 0, 0, 0, -x * to_x, -x * to_y])
        rows.append([0, 0, 0, to_x, to_y, 1, -y * to_x, -y * to_y])
        wanted += [x, y]
    return tuple(
        np.linalg.solve(np.array(rows, dtype=float), np.array(wanted, dtype=float)).tolist()
    )
