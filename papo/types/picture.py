"""How a picture lies in patches and image tokens, whatever the model family."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Shaped
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureLayout:
    """Where the patches and the image tokens of one picture lie.

    A picture is cut into equal tiles, a tile into patches (what a vision tower reads, and the least that a mask
    hides), and a square of patches becomes one image token. Rows of patches stand tile by tile, in a tile token
    by token, and in a token row by row; so do image tokens:

        tile_columns=2, columns=4, token_side=2        rows of patches:  0 1 4 5 | 8  9 12 13
        (rows=2, one tile row)                                           2 3 6 7 | 10 11 14 15

    Attributes:
        rows, columns: patches of a tile along each side.
        token_side: patches along each side of one image token.
        tile_rows, tile_columns: tiles that the picture is cut into.
        thumbnail: one more tile, after the others, shows the whole picture again.
    """

    rows: int
    columns: int
    token_side: int
    tile_rows: int = 1
    tile_columns: int = 1
    thumbnail: bool = False

    def __post_init__(self) -> None:
        assert self.rows % self.token_side == self.columns % self.token_side == 0, self

    @property
    def num_tiles(self) -> int:
        return self.tile_rows * self.tile_columns + self.thumbnail

    @property
    def patches_per_token(self) -> int:
        return self.token_side**2

    @property
    def num_patches(self) -> int:
        return self.num_tiles * self.rows * self.columns

    @property
    def num_tokens(self) -> int:
        return self.num_patches // self.patches_per_token

    @property
    def num_first(self) -> int:
        """Patches that show their part of the picture first: all but those of a thumbnail."""
        return self.tile_rows * self.tile_columns * self.rows * self.columns

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of these patches over the whole picture."""
        return self.tile_rows * self.rows, self.tile_columns * self.columns

    @property
    def token_grid(self) -> tuple[int, int]:
        """Rows and columns of their image tokens."""
        rows, columns = self.grid
        return rows // self.token_side, columns // self.token_side

    def as_tokens(self) -> "PictureLayout":
        """The layout whose patches are this one's image tokens."""
        side = self.token_side
        return replace(self, rows=self.rows // side, columns=self.columns // side, token_side=1)

    def tiled(self, rows: int, columns: int, *, thumbnail: bool) -> "PictureLayout":
        """The layout of a picture cut into so many such tiles."""
        return replace(self, tile_rows=rows, tile_columns=columns, thumbnail=thumbnail)

    def in_tile_rows(self, values: Shaped[Tensor, "tile patch"]) -> Shaped[Tensor, " row"]:
        """Values of the patches of tiles, row by row in each, in the order of the rows."""
        tile = replace(self, tile_rows=1, tile_columns=1, thumbnail=False)
        return torch.cat([tile.in_rows(each.view(tile.grid)) for each in values])

    def over_picture(self, values: Shaped[Tensor, "patch ..."]) -> Shaped[Tensor, "y x ..."]:
        """Values of the patches that come first, at their places over the picture."""
        tiles = values[: self.num_first].unflatten(0, self._nested)
        ordered = tiles.permute(0, 2, 4, 1, 3, 5, *range(6, tiles.ndim))
        return ordered.reshape(*self.grid, *values.shape[1:])

    def in_rows(self, values: Shaped[Tensor, "y x ..."]) -> Shaped[Tensor, "patch ..."]:
        """Undoes `over_picture`."""
        tile_rows, tile_columns, rows, columns, side, _ = self._nested
        cells = values.reshape(
            tile_rows, rows, side, tile_columns, columns, side, *values.shape[2:]
        )
        ordered = cells.permute(0, 3, 1, 4, 2, 5, *range(6, cells.ndim))
        return ordered.reshape(self.num_first, *values.shape[2:])

    @property
    def _nested(self) -> tuple[int, ...]:
        side = self.token_side
        cells = (self.rows // side, self.columns // side, side, side)
        return (self.tile_rows, self.tile_columns, *cells)
