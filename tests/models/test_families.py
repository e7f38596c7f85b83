"""Nothing outside papo/models/families knows one family from another, and a picture's layout leads back to the picture."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from papo.evaluation.probe.attention import heat_map
from papo.masking.hidden import hide_patches
from papo.models.families import FAMILIES, SUPPORTED_FAMILIES
from papo.models.tiny import build_byte_tokenizer
from papo.types import PictureLayout, Problem, PromptGroup

PAPO = Path(__file__).parents[2] / "papo"
NAMES = re.compile(r"qwen|internvl|smolvlm|gemma|image_grid_thw|merge_size|m-?rope", re.IGNORECASE)
MAY_NAME_ONE = {
    "analysis/errors/analysis.py": "a published number is of one model",
    "analysis/sweeps/report.py": "names of published experiments",
    "commands/help.py": "an example of a command",
    "commands/policy_source.py": "an example of a setting",
    "lab/model.py": "the shipped starting policy is of one family",
    "lab/vocabulary.py": "the shipped starting policy's tokenizer",
    "models/loading.py": "an example of a setting",
    "rewards/format_rule.py": "whose answers a published rule was made for",
    "training/room.py": "an example of a setting",
}
PLAIN = PictureLayout(rows=4, columns=6, token_side=2)
TILED = PictureLayout(rows=2, columns=4, token_side=2, tile_rows=2, tile_columns=3, thumbnail=True)


def test_only_the_families_name_a_family():
    named = {
        str(path.relative_to(PAPO))
        for path in PAPO.rglob("*.py")
        if NAMES.search(path.read_text("utf-8"))
    }
    assert {each for each in named if not each.startswith("models/families/")} == set(MAY_NAME_ONE)


def test_patches_of_a_tiled_picture_stand_where_the_drawing_says():
    layout = PictureLayout(rows=2, columns=4, token_side=2, tile_columns=2)
    drawn = [[0, 1, 4, 5, 8, 9, 12, 13], [2, 3, 6, 7, 10, 11, 14, 15]]
    assert layout.over_picture(torch.arange(16)).tolist() == drawn
    assert layout.token_grid == (1, 4)


@pytest.mark.parametrize("layout", [PLAIN, TILED])
def test_rows_and_places_lead_to_one_another(layout):
    values = torch.randn(layout.num_patches, 3)
    over = layout.over_picture(values)
    assert over.shape == (*layout.grid, 3)
    assert torch.equal(layout.in_rows(over), values[: layout.num_first])
    tokens = values[:: layout.patches_per_token]
    corners = over[:: layout.token_side, :: layout.token_side]
    assert torch.equal(layout.as_tokens().over_picture(tokens), corners)


def group(layout, channels=12):
    """A group with one picture whose patches are all 1."""
    problem = Problem(id="p", question="q", answer="1", images=(), source="test")
    return PromptGroup(
        problem=problem,
        prompt_ids=torch.zeros(1, dtype=torch.long),
        position_ids=torch.zeros(1, 1, dtype=torch.long),
        next_position=1,
        patches=torch.ones(layout.num_patches, channels),
        pictures=(layout,),
    )


def test_a_thumbnail_is_black_where_it_shows_what_is_hidden():
    hidden = torch.zeros(TILED.grid, dtype=torch.bool)
    hidden[:, 6:] = True  # the right half of the picture
    masked = hide_patches(group(TILED), TILED.in_rows(hidden), lambda images: torch.zeros(1, 12))
    first, thumbnail = masked.split([TILED.num_first, TILED.rows * TILED.columns])
    assert torch.equal(TILED.over_picture(first)[..., 0] == 0, hidden)
    shown = TILED.tiled(1, 1, thumbnail=False).over_picture(thumbnail.unflatten(1, (3, 2, 2)))
    pixels = shown.permute(2, 0, 3, 1, 4).reshape(3, 4, 8)
    assert (pixels[:, :, 4:] == 0).all()
    assert (pixels[:, :, :4] == 1).all()


def test_what_a_thumbnail_hides_is_counted_in_pixels():
    one = torch.zeros(TILED.num_first, dtype=torch.bool)
    one[0] = (
        True  # of 4 x 12 patches, 2 x 4 of which a thumbnail has: no pixel's middle lies elsewhere
    )
    masked = hide_patches(group(TILED), one, lambda images: torch.zeros(1, 12))
    assert int((masked[: TILED.num_first] == 0).all(dim=1).sum()) == 1
    assert int((masked[TILED.num_first :] == 0).sum()) == 3  # one pixel, three channels


@pytest.mark.parametrize("layout", [PLAIN, TILED, replace(TILED, tile_rows=3)])
def test_heat_over_a_picture_keeps_its_sum(layout):
    heat = torch.rand(layout.num_tokens)
    found = heat_map(heat, layout)
    assert found.shape == layout.token_grid
    torch.testing.assert_close(found.sum(), heat.sum())


@pytest.mark.parametrize("family", SUPPORTED_FAMILIES)
def test_every_special_token_of_a_tiny_tokenizer_is_one_token(family):
    tokenizer = build_byte_tokenizer(family)
    for token in FAMILIES[family].special_tokens:
        assert len(tokenizer(token).input_ids) == 1, token
