"""Random blackening: every cell of a grid is hidden independently with the same probability."""

import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from papo.masking.black import image_patches, like_patches
from papo.masking.hidden import hide_patches
from papo.types import ProcessImages, PromptGroup

MASK_GRIDS = ("raw", "patch", "token")


class RandomPatchMask:
    """Blackens every cell of each image independently with probability `ratio`.

    I_mask of PAPO (arXiv:2507.06448v5, section 3). What a cell is, `grid` says:

    * "raw": a square of `raw_square_pixels` pixels of the picture before it is resized, counted
      from the top left corner, cut off at the right and bottom edge; the authors' code. Resizing
      moves and blurs the squares, so few image tokens are entirely black or entirely untouched.
    * "patch": one patch of the vision tower.
    * "token": the square of patches that becomes one image token of the language model; at ratio p
      a share p of what the language model reads is hidden.

    A thumbnail, which shows the whole picture again, is black where it shows what is hidden.

    Args:
        ratio: probability of hiding a cell, 0 to 1; the hidden share varies around it.
        grid: what a cell is.
        raw_square_pixels: side of a cell of the "raw" grid, in pixels of the raw picture.
        seed: of the masks alone; the caller mixes it into the generator it hands over.

    Raises:
        ValueError: a setting is outside its range.
    """

    def __init__(self, *, ratio: float, grid: str, raw_square_pixels: int, seed: int) -> None:
        if not 0.0 <= ratio <= 1.0:
            raise ValueError(
                f"a mask ratio is a probability; got {ratio}. "
                "Set masking.ratio between 0 and 1 (published: 0.6)."
            )
        if grid not in MASK_GRIDS:
            raise ValueError(
                f"a mask grid is one of {', '.join(MASK_GRIDS)}; got {grid!r}. Set masking.grid."
            )
        if raw_square_pixels < 1:
            raise ValueError(
                f"a mask cell has at least one pixel; got {raw_square_pixels}. Set masking.raw_square_pixels."
            )
        self.ratio = ratio
        self.grid = grid
        self.raw_square_pixels = raw_square_pixels
        self.seed = seed

    def __call__(
        self,
        group: PromptGroup,
        generator: torch.Generator,
        process_images: ProcessImages,
    ) -> Float[Tensor, "patch pixel"]:
        """Returns the patches of the masked images, shaped like `group.patches`.

        Raises:
            ValueError: the prompt has no image.
        """
        image_patches(group)
        if self.grid == "raw":
            masked = [self._blacken_squares(image, generator) for image in group.problem.images]
            return like_patches(group, process_images(masked))
        # Processors order patches token by token: the rows of one token stand together.
        per_cell = torch.tensor(
            [each.patches_per_token if self.grid == "token" else 1 for each in group.pictures]
        )
        cells = torch.tensor([each.num_first for each in group.pictures]) // per_cell
        hidden = self._draw((int(cells.sum()),), generator)
        hidden = hidden.repeat_interleave(per_cell.repeat_interleave(cells))
        return hide_patches(group, hidden, process_images)

    def _blacken_squares(self, image: Image.Image, generator: torch.Generator) -> Image.Image:
        side = self.raw_square_pixels
        cells = (-(-image.height // side), -(-image.width // side))
        return self.blacken(image, self._draw(cells, generator))

    def blacken(self, image: Image.Image, hidden: Bool[Tensor, "row column"]) -> Image.Image:
        """Returns the raw picture with the squares that are True in `hidden` black."""
        side = self.raw_square_pixels
        pixels = hidden.repeat_interleave(side, 0).repeat_interleave(side, 1)
        pixels = pixels[: image.height, : image.width].to(torch.uint8) * 255
        # A palette or a 16-bit picture has no black of its own to paint with.
        masked = image.copy() if image.mode in ("RGB", "RGBA", "L") else image.convert("RGB")
        masked.paste("black", mask=Image.fromarray(pixels.numpy()))
        return masked

    def _draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Bool[Tensor, "..."]:
        # rand is below 1, so ratio 1 hides every cell and ratio 0 none.
        return (torch.rand(shape, generator=generator, device=generator.device) < self.ratio).cpu()
