"""The vision tower attends in one call per layer and size of window: the same bits, fewer calls."""

import pytest
import torch
from model_fixtures import noise_image, problem, tiny_policy

from papo.models.families import QwenVLAdapter
from papo.models.families.qwen_vl import grid_thw
from papo.models.families.qwen_windows import (
    EqualWindows,
    install_batched_windows,
    windowed_attention,
)


def policy_with_windows(family, depth=3, whole=(1,), **settings):
    """A tower whose layers, but for `whole`, see windows of 4 x 4 image tokens where its family does."""
    policy = tiny_policy(family, vision_depth=depth, max_pixels=400 * 400, **settings)
    tower = policy.adapter.vision_tower
    if family == "qwen2_5_vl":
        tower.fullatt_block_indexes = list(whole)
        install_batched_windows(tower)
    return policy


def pictures(policy, sizes):
    """Patches and grid of pictures, given as (rows, columns) of image tokens."""
    side = 2 * policy.adapter.vision_tower.patch_size
    images = tuple(
        noise_image(columns * side, rows * side, seed) for seed, (rows, columns) in enumerate(sizes)
    )
    [group] = policy.encode([problem("<image>" * len(images), images=images)])
    assert [each.grid for each in group.pictures] == [(2 * r, 2 * c) for r, c in sizes]
    return group.patches, group.pictures


def features_and_gradients(policy, features):
    """The bits of a pass of the tower and of its backward pass."""
    policy.zero_grad()
    parts = [features.tokens, *features.deepstack]
    sum(
        (part * torch.linspace(-1, 1, part.numel()).view_as(part)).sum() for part in parts
    ).backward()
    tower = policy.adapter.vision_tower
    return [part.detach() for part in parts] + [p.grad for p in tower.parameters()]


def plain_features(policy, patches, seen):
    """The tower as transformers runs it: window by window."""
    from papo.models import VisionFeatures

    outputs = policy.model.model.get_image_features(
        patches, grid_thw(seen).to(patches.device), return_dict=True
    )
    layers = outputs.get("deepstack_features") or ()
    return VisionFeatures(
        tokens=torch.cat(outputs.pooler_output),
        deepstack=tuple(torch.cat(layer) for layer in layers),
    )


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize(
    "sizes",
    [[(4, 4)], [(5, 7)], [(8, 8), (5, 7), (3, 9)], [(5, 6), (2, 2), (5, 6), (2, 2), (9, 4)]],
)
def test_features_and_gradients_are_those_of_one_window_at_a_time(family, sizes, implementation):
    policy = policy_with_windows(family)
    policy.adapter.vision_tower.set_attn_implementation(implementation)
    patches, seen = pictures(policy, sizes)
    got = features_and_gradients(policy, policy.adapter.vision_features(patches, seen))
    expected = features_and_gradients(policy, plain_features(policy, patches, seen))
    if implementation == "sdpa":
        assert all(torch.equal(one, other) for one, other in zip(got, expected, strict=True))
    for one, other in zip(got, expected, strict=True):
        scale = float(other.abs().max())
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6 * scale)


def count_attention_calls(monkeypatch):
    calls = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def counted(query, *args, **kwargs):
        calls.append(tuple(query.shape))
        return attend(query, *args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    return calls


# At the depth of Qwen2.5-VL-3B and 7B: 32 layers, of which 4 see the whole picture.
@pytest.mark.parametrize(
    ("size", "plain", "batched"),
    [
        ((8, 8), 28 * 4 + 4, 32),
        ((8, 10), 28 * 6 + 4, 60),
        ((9, 9), 28 * 9 + 4, 88),
        # Windows cut on both sides by different lengths: four sizes, the most that there can be.
        ((9, 10), 28 * 9 + 4, 116),
    ],
)
def test_a_picture_takes_one_call_per_layer_and_size_of_window(monkeypatch, size, plain, batched):
    policy = policy_with_windows("qwen2_5_vl", depth=32, whole=(7, 15, 23, 31))
    patches, seen = pictures(policy, [size])
    calls = count_attention_calls(monkeypatch)
    with torch.no_grad():
        plain_features(policy, patches, seen)
        assert len(calls) == plain
        calls.clear()
        policy.adapter.vision_features(patches, seen)
    assert len(calls) == batched


def test_pictures_of_one_size_take_one_call_per_layer(family, monkeypatch):
    policy = policy_with_windows(family, depth=2, whole=(0, 1))
    patches, seen = pictures(policy, [(3, 5), (2, 2), (3, 5), (3, 5)])
    calls = count_attention_calls(monkeypatch)
    with torch.no_grad():
        policy.adapter.vision_features(patches, seen)
    assert [shape[0] for shape in calls] == [1, 3] * 2


def test_nothing_of_a_pass_waits_for_the_device(family):
    # A tensor without data stands for one on a device: reading a value of it is an error.
    policy = policy_with_windows(family)
    patches, seen = pictures(policy, [(5, 7), (2, 2)])
    policy.model.to("meta")
    features = policy.adapter.vision_features(patches.to("meta"), seen)
    assert features.tokens.shape[0] == 5 * 7 + 2 * 2
    with pytest.raises((RuntimeError, NotImplementedError)):
        plain_features(policy, patches.to("meta"), seen)


def test_each_patch_attends_to_its_own_window():
    # Windows of 2, 1, 2 and 3 patches; what a patch attends to is what its output is made of.
    windows = EqualWindows.of(torch.tensor([0, 2, 3, 5, 8]), torch.device("cpu"))
    assert windows.sizes == ((1, 1), (2, 2), (3, 1))
    rows = torch.eye(8)[None, None]
    attended = windowed_attention(
        torch.zeros(1, 1, 8, 8),
        rows,
        rows,
        windows=windows,
        attend=lambda *batch: torch.nn.functional.scaled_dot_product_attention(*batch).transpose(
            1, 2
        ),
    )[0, :, 0]
    expected = torch.zeros(8, 8)
    for start, stop in ((0, 2), (2, 3), (3, 5), (5, 8)):
        expected[start:stop, start:stop] = 1 / (stop - start)
    torch.testing.assert_close(attended, expected)


def test_an_implementation_that_takes_all_sizes_at_once_is_left_alone():
    policy = tiny_policy()
    tower = policy.adapter.vision_tower
    for block in tower.blocks:
        del block.attn.plain_config
        block.attn.config = tower.config
    tower.config._attn_implementation = "flash_attention_2"
    adapter = QwenVLAdapter(policy.model)
    assert all(block.attn.config is tower.config for block in adapter.vision_tower.blocks)


def test_recomputed_layers_attend_the_same_way(family):
    results = []
    for gradient_checkpointing in (False, True):
        policy = policy_with_windows(family, gradient_checkpointing=gradient_checkpointing)
        patches, seen = pictures(policy, [(5, 7), (3, 9)])
        policy.model.train(gradient_checkpointing)
        features = policy.adapter.vision_features(patches, seen)
        results.append(features_and_gradients(policy, features))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
