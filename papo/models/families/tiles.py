"""Square tiles of pixels and rows of patches: what vision towers with tiles of one size have in common."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from papo.models.families.family import FamilyAdapter, VisionFeatures
from papo.types import PictureLayout


def cut_tiles(
    tiles: Float[Tensor, "tile 3 height width"], layout: PictureLayout
) -> Float[Tensor, "patch pixel"]:
    """The patches of tiles, in the order of PictureLayout."""
    side, merge = tiles.shape[2] // layout.rows, layout.token_side
    cells = tiles.unflatten(3, (-1, merge, side)).unflatten(2, (-1, merge, side))
    return cells.permute(0, 2, 5, 3, 6, 1, 4, 7).flatten(5).flatten(0, 4)


def put_together(
    patches: Float[Tensor, "patch pixel"], layout: PictureLayout
) -> Float[Tensor, "tile 3 height width"]:
    """Undoes `cut_tiles`."""
    side, merge = round((patches.shape[1] / 3) ** 0.5), layout.token_side
    rows, columns = layout.rows // merge, layout.columns // merge
    cells = patches.view(-1, rows, columns, merge, merge, 3, side, side)
    return cells.permute(0, 5, 1, 3, 6, 2, 4, 7).reshape(
        -1, 3, layout.rows * side, layout.columns * side
    )


class TileAdapter(FamilyAdapter):
    """Reads pictures that are square tiles of one size.

    Attributes:
        attention_name: of the attention in a layer of the vision tower.
        num_skipped: tokens of the tower before the patches of a tile, which neither attend nor receive.
    """

    attention_name: ClassVar[str] = "self_attn"
    num_skipped: ClassVar[int] = 0

    def vision_features(
        self, patches: Float[Tensor, "patch pixel"], pictures: Sequence[PictureLayout]
    ) -> VisionFeatures:
        tiles = put_together(patches, pictures[0])
        outputs = self.model.model.get_image_features(pixel_values=tiles, return_dict=True)
        return VisionFeatures(tokens=outputs.pooler_output.flatten(0, 1))

    def received_attention(
        self, patches: Float[Tensor, "patch pixel"], pictures: Sequence[PictureLayout]
    ) -> Float[Tensor, " patch"]:
        """Of all layers."""
        attentions = [layer.get_submodule(self.attention_name) for layer in self.vision_layers]
        tiles = put_together(patches, pictures[0])
        with attention_in_tiles(attentions, self._heads, skipped=self.num_skipped) as received:
            self.vision_tower(pixel_values=tiles)
        return pictures[0].in_tile_rows(received())

    def _heads(self, attention: Any, hidden: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
        queries, keys = (
            each.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
            for each in self.queries_and_keys(attention, hidden)
        )
        return queries * queries.shape[-1] ** -0.5, keys

    @staticmethod
    def queries_and_keys(attention: Any, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Of all heads of one layer of the tower, given what it reads."""
        return attention.q_proj(hidden), attention.k_proj(hidden)


@contextmanager
def attention_in_tiles(
    attentions: Sequence[Any],
    heads: Callable[..., tuple[Tensor, Tensor]],
    *,
    skipped: int = 0,
) -> Iterator[Callable[[], Float[Tensor, "tile patch"]]]:
    """Within, calls of these layers are watched; gives a function that says what each patch of each tile received.

    Args:
        attentions: modules that read the hidden states of tiles.
        heads: of one of them, given what it is called with: scaled queries and as many keys [tile head patch channel].
        skipped: tokens before the patches, which neither attend nor receive.
    """
    found: list[Tensor] = []

    def note(attention: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        given = {**keywords, **({"hidden_states": arguments[0]} if arguments else {})}
        queries, keys = heads(attention, given.pop("hidden_states"), **given)
        tiles = []
        for query, key in zip(queries, keys, strict=True):  # maps are large
            maps = (query @ key.transpose(1, 2)).float().softmax(dim=-1)
            tiles.append(maps[:, skipped:, skipped:].sum(dim=1).mean(dim=0))
        found.append(torch.stack(tiles))

    handles = [each.register_forward_pre_hook(note, with_kwargs=True) for each in attentions]
    try:
        yield lambda: torch.stack(found).sum(dim=0)
    finally:
        for handle in handles:
            handle.remove()
