"""What is attended to is hidden first, and attention is what the definition says."""

import math

import numpy as np
import pytest
import torch
from model_fixtures import noise_image, problem, tiny_policy
from PIL import Image
from transformers import Dinov2Config, Dinov2Model

from papo.masking import DinoSaliency, SemanticMask
from papo.models import VisionTowerSaliency
from papo.models.families.gemma4 import padded_pictures
from papo.models.families.qwen_vl import grid_thw
from papo.models.families.tiles import put_together
from papo.types import IMAGE_MARKER, PictureLayout, Problem, PromptGroup

LAYERS, HEADS, WIDTH = 3, 2, 16


@pytest.fixture(scope="module")
def dino_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dino")
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        mlp_ratio=2,
        image_size=56,
        patch_size=14,
        initializer_range=0.5,
    )
    Dinov2Model(config).save_pretrained(folder)
    return folder


def dino(folder, **changes):
    settings = {
        "path": str(folder),
        "hub_id": "none",
        "revision": None,
        "layers": [2, 3],
        "max_patches": 576,
    }
    return DinoSaliency(**{**settings, **changes})


@pytest.fixture(scope="module")
def policy():
    return tiny_policy("qwen2_5_vl", max_pixels=256 * 256)


def encoded(policy, *images):
    return policy.encode([problem(IMAGE_MARKER * len(images), images=images)])[0]


def group_with(num_patches, grid):
    """A group whose patches are told apart by their value."""
    patches = torch.arange(1.0, num_patches + 1)[:, None].expand(-1, 6).contiguous()
    return PromptGroup(
        problem=Problem(
            id="p",
            question=IMAGE_MARKER * len(grid),
            answer="1",
            images=tuple(Image.new("RGB", (28, 28)) for _ in grid),
            source="test",
        ),
        prompt_ids=torch.zeros(1, dtype=torch.long),
        position_ids=torch.zeros(3, 1, dtype=torch.long),
        next_position=1,
        patches=patches,
        pictures=tuple(
            PictureLayout(rows=rows, columns=columns, token_side=1) for _, rows, columns in grid
        ),
    )


def mask_by(saliency, group, ratio):
    mask = SemanticMask(ratio=ratio, saliency=lambda _: torch.as_tensor(saliency))
    masked = mask(group, torch.Generator(), lambda images: torch.zeros(4, 6))
    return (masked == 0).all(dim=1).tolist()


def naive_attention_received(model, pixels, layers):
    """The definition, one query at a time, on the hidden states in front of each layer."""
    hidden = model(pixels, output_hidden_states=True).hidden_states
    total = 0.0
    for number in layers:
        layer = model.encoder.layer[number - 1]
        states = layer.norm1(hidden[number - 1])[0]
        queries, keys = (
            projection(states).reshape(-1, HEADS, WIDTH // HEADS).double().tolist()
            for projection in (layer.attention.q_proj, layer.attention.k_proj)
        )
        count = len(queries)
        received = [0.0] * count
        for query in range(1, count):  # 0 is the class token
            for head in range(HEADS):
                logits = [
                    sum(a * b for a, b in zip(queries[query][head], keys[k][head], strict=True))
                    / math.sqrt(WIDTH // HEADS)
                    for k in range(count)
                ]
                normaliser = sum(math.exp(x) for x in logits)
                for key in range(1, count):
                    received[key] += math.exp(logits[key]) / normaliser / HEADS
        total = total + np.array(received[1:])
    return total


def test_dino_gives_the_attention_each_patch_receives_in_the_order_of_the_patches(
    dino_folder, policy
):
    image = noise_image(112, 56)  # 4 rows and 8 columns of patches, without resizing
    group = encoded(policy, image)
    assert [each.grid for each in group.pictures] == [(4, 8)]
    saliency = dino(dino_folder)
    expected = naive_attention_received(
        saliency._model, saliency._pixels(image, 4, 8), [2, 3]
    ).reshape(4, 8)
    # Two rows of two patches make a token; tokens run along the rows.
    order = [
        (2 * r + i, 2 * c + j)
        for r in range(2)
        for c in range(4)
        for i in range(2)
        for j in range(2)
    ]
    np.testing.assert_allclose(saliency(group), [expected[at] for at in order], rtol=2e-4)


def test_dino_sees_the_picture_normalised_as_it_was_trained(dino_folder):
    pixels = dino(dino_folder)._pixels(Image.new("RGB", (70, 30), (255, 0, 128)), 2, 5)
    assert pixels.shape == (1, 3, 28, 70)
    # (1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (128 / 255 - 0.406) / 0.225
    assert pixels[0, :, 3, 3].tolist() == pytest.approx([2.2489, -2.0357, 0.4265], abs=1e-3)


def test_dino_looks_at_large_pictures_on_a_coarser_grid(dino_folder, policy):
    group = encoded(policy, noise_image(112, 112))
    coarse = dino(dino_folder, max_patches=16)(group)
    assert coarse.shape == (64,)
    # 4 x 4 cells of 2 x 2 patches: the patches of a token share one.
    tokens = coarse.reshape(16, 4)
    assert (tokens == tokens[:, :1]).all()
    assert len(tokens[:, 0].unique()) == 16


def test_each_image_of_a_prompt_is_looked_at_by_itself(dino_folder, policy):
    first, second = noise_image(56, 56, 1), noise_image(112, 56, 2)
    saliency = dino(dino_folder)
    both = saliency(encoded(policy, first, second))
    torch.testing.assert_close(both[:16], saliency(encoded(policy, first)))
    torch.testing.assert_close(both[16:], saliency(encoded(policy, second)))


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_the_tower_gives_the_attention_it_pays_itself(family, monkeypatch):
    import importlib

    policy = tiny_policy(family, max_pixels=256 * 256)
    tower = policy.adapter.vision_tower
    group = encoded(policy, noise_image(224, 168, 3), noise_image(64, 64, 4))
    saliency = VisionTowerSaliency(policy)(group)

    # transformers' own attention maps, in the order in which the tower keeps its patches ...
    modeling = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    maps, original = [], modeling.eager_attention_forward

    def recording(*arguments, **settings):
        output, weights = original(*arguments, **settings)
        maps.append(weights[0])
        return output, weights

    monkeypatch.setattr(modeling, "eager_attention_forward", recording)
    monkeypatch.setattr(tower.config, "_attn_implementation", "eager")
    embedded, first_input, layer_starts = [], [], []
    tower.patch_embed.register_forward_hook(lambda m, a, out: embedded.append(out))
    tower.blocks[0].register_forward_pre_hook(lambda m, a: first_input.append(a[0]))
    for block in tower.blocks:
        block.register_forward_pre_hook(lambda m, a: layer_starts.append(len(maps)))
    with torch.no_grad():
        tower(group.patches, grid_thw=grid_thw(group.pictures))
    received = torch.zeros(len(group.patches))
    full = getattr(tower, "fullatt_block_indexes", range(len(tower.blocks)))
    for layer in full:
        stop = [*layer_starts, len(maps)][layer + 1]
        received += torch.cat([m.mean(dim=0).sum(dim=0) for m in maps[layer_starts[layer] : stop]])

    # ... and brought back by finding each embedded patch among the inputs of the first layer.
    if family == "qwen3_vl":
        expected = received
    else:
        distances = torch.cdist(embedded[0].double(), first_input[0].double())
        assert distances.argmin(dim=1).tolist() != list(range(len(received)))
        expected = received[distances.argmin(dim=1)]
    assert len(full) > 0
    torch.testing.assert_close(saliency, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("family", "skipped"), [("internvl", 1), ("smolvlm", 0), ("gemma3", 0)])
def test_a_tower_of_tiles_gives_the_attention_it_pays_itself(family, skipped):
    policy = tiny_policy(family, max_pixels=256 * 256, scoring="auto")
    group = encoded(policy, noise_image(112, 56, 3), noise_image(64, 64, 4))
    saliency = VisionTowerSaliency(policy)(group)
    policy.model.set_attn_implementation("eager")
    tiles = put_together(group.patches, group.pictures[0])
    with torch.no_grad():
        maps = policy.adapter.vision_tower(pixel_values=tiles, output_attentions=True).attentions
    received = sum(m[:, :, skipped:, skipped:].mean(dim=1).sum(dim=1) for m in maps)
    one = group.pictures[0].tiled(1, 1, thumbnail=False)
    expected = torch.cat([one.in_rows(each.view(one.grid)) for each in received])
    torch.testing.assert_close(saliency, expected, rtol=1e-4, atol=1e-5)


def test_a_tower_of_padded_pictures_gives_the_attention_it_pays_itself():
    policy = tiny_policy("gemma4", max_pixels=1, scoring="auto")
    group = encoded(policy, noise_image(112, 56, 3), noise_image(64, 64, 4))
    saliency = VisionTowerSaliency(policy)(group)
    policy.model.set_attn_implementation("eager")
    pixels, places = padded_pictures(group.patches, group.pictures)
    assert (places == -1).any()
    with torch.no_grad():
        maps = policy.adapter.vision_tower(
            pixel_values=pixels, pixel_position_ids=places, output_attentions=True
        ).attentions
    expected = []
    for index, picture in enumerate(group.pictures):
        seen = picture.num_patches
        received = sum(m[index, :, :seen, :seen].mean(dim=0).sum(dim=0) for m in maps)
        expected.append(picture.in_rows(received.view(picture.grid)))
    torch.testing.assert_close(saliency, torch.cat(expected), rtol=1e-4, atol=1e-5)


def test_asking_the_tower_leaves_no_hook_and_no_gradient(policy):
    group = encoded(policy, noise_image(56, 56))
    assert not VisionTowerSaliency(policy)(group).requires_grad
    assert not any(b.attn._forward_pre_hooks for b in policy.adapter.vision_tower.blocks)


def test_hides_the_floor_of_the_ratio_of_each_image_most_salient_first():
    group = group_with(5 + 4, [[1, 1, 5], [1, 2, 2]])
    saliency = [0.1, 0.5, 0.3, 0.4, 0.2, 9.0, 7.0, 8.0, 6.0]
    # floor(0.6 * 5) = 3 and floor(0.6 * 4) = 2
    hidden = mask_by(saliency, group, 0.6)
    assert hidden == [False, True, True, True, False, True, False, True, False]
    assert not any(mask_by(saliency, group, 0.0))
    assert all(mask_by(saliency, group, 1.0))


def test_ties_go_to_the_earlier_patch():
    assert mask_by([1.0] * 4, group_with(4, [[1, 2, 2]]), 0.5) == [True, True, False, False]


def test_hidden_patches_are_the_processors_black_and_others_untouched(dino_folder, policy):
    group = encoded(policy, noise_image(112, 56))
    mask = SemanticMask(ratio=0.6, saliency=dino(dino_folder))
    masked = mask(group, torch.Generator(), policy.process_images)
    black = policy.process_images([Image.new("RGB", (56, 56))])[0]
    changed = (masked != group.patches).any(dim=1)
    assert int(changed.sum()) == 19  # floor(0.6 * 32)
    assert (masked[changed] == black).all()


def test_missing_weights_are_named_before_anything_is_loaded(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"masking\.saliency\.path"):
        SemanticMask(ratio=0.6, saliency=dino(tmp_path)).preflight()
    with pytest.raises(FileNotFoundError, match="masking=semantic_policy"):
        SemanticMask(ratio=0.6, saliency=dino(None, path=None, hub_id="no/such")).preflight()


@pytest.mark.parametrize(
    ("broken", "key"),
    [
        (lambda folder: SemanticMask(ratio=1.2, saliency=dino(folder)), "masking.ratio"),
        (lambda folder: dino(folder, layers=[]), "masking.saliency.layers"),
        (lambda folder: dino(folder, layers=[0]), "masking.saliency.layers"),
        (lambda folder: dino(folder, layers=[4])._model, "masking.saliency.layers"),
        (lambda folder: dino(folder, max_patches=0), "masking.saliency.max_patches"),
    ],
)
def test_impossible_settings_name_the_key(dino_folder, broken, key):
    with pytest.raises(ValueError, match=key):
        broken(dino_folder)


def test_a_prompt_without_images_is_refused(dino_folder, policy):
    group = policy.encode([problem("text", images=())])[0]
    for saliency in (dino(dino_folder), VisionTowerSaliency(policy)):
        with pytest.raises(ValueError, match="no image"):
            saliency(group)
