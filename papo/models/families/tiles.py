"""Square tiles of pixels and rows of patches: what vision towers with tiles of one size have in common."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

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


@contextmanager
def attention_in_tiles(
    attentions: Sequence[Any],
    queries_and_keys: Callable[[Any, Tensor], tuple[Tensor, Tensor]],
    *,
    skipped: int = 0,
) -> Iterator[Callable[[], Float[Tensor, "tile patch"]]]:
    """Within, calls of these layers are watched; gives a function that says what each patch of each tile received.

    Args:
        attentions: modules that read the hidden states of tiles.
        queries_and_keys: of one of them, given its input.
        skipped: tokens before the patches, which neither attend nor receive.
    """
    found: list[Tensor] = []

    def note(attention: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        hidden = arguments[0] if arguments else keywords["hidden_states"]
        heads = attention.num_heads
        queries, keys = (
            each.unflatten(-1, (heads, -1)).transpose(1, 2)
            for each in queries_and_keys(attention, hidden)
        )
        tiles = []
        for query, key in zip(queries, keys, strict=True):  # maps are large
            maps = (query @ key.transpose(1, 2) * query.shape[-1] ** -0.5).float().softmax(dim=-1)
            tiles.append(maps[:, skipped:, skipped:].sum(dim=1).mean(dim=0))
        found.append(torch.stack(tiles))

    handles = [each.register_forward_pre_hook(note, with_kwargs=True) for each in attentions]
    try:
        yield lambda: torch.stack(found).sum(dim=0)
    finally:
        for handle in handles:
            handle.remove()
