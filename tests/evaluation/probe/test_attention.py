"""Attention on the picture: equal to the Hugging Face model's own weights, counted naively."""

import csv
import json
import math

import pytest
import torch
from model_fixtures import noise_image, problem, tiny_policy

from papo.evaluation.probe.attention import (
    layer_attention,
    measure_attention,
    response_attention,
    write_attention,
)
from papo.models.families.qwen_vl import grid_thw
from papo.types import ResponseRecord

NUM_TOKENS = 5


def record(response="some words", **changes):
    values = {
        "benchmark": "some",
        "problem_id": "p",
        "view": "image",
        "response_index": 0,
        "seed": 0,
        "response": response,
        "reference": "",
        "answer": None,
        "correct": True,
        "verdicts": {},
        "num_tokens": 1,
        "stop_reason": "end",
    }
    return ResponseRecord(**{**values, **changes})


def two_pictures():
    images = (noise_image(60, 90), noise_image(100, 40, 1))
    return problem("<image> and <image>?", images=images)


@torch.no_grad()
def weights_of_the_model(policy, group, ids):
    """Every layer's [head, query, key] over the whole sequence, by a plain call of the model."""
    sequence = torch.cat([group.prompt_ids, ids])[None]
    policy.model.set_attn_implementation("eager")
    policy.model.model.rope_deltas = None
    outputs = policy.model(
        input_ids=sequence,
        pixel_values=group.patches,
        image_grid_thw=grid_thw(group.pictures),
        mm_token_type_ids=(sequence == policy.adapter.image_token_id).long(),
        output_attentions=True,
    )
    return [layer[0] for layer in outputs.attentions]


def naive_layer(weights, group, image_token_id, num_tokens):
    """Share, entropy and heat, one number after another."""
    prompt = group.prompt_ids.tolist()
    slots = [place for place, token in enumerate(prompt) if token == image_token_id]
    shares, entropies, heat = [], [], [0.0] * len(slots)
    for token in range(num_tokens):
        row = len(prompt) - 1 + token
        on_image = []
        for place in slots:
            heads = [weights[head, row, place].item() for head in range(weights.shape[0])]
            on_image.append(sum(heads) / len(heads))
        shares.append(sum(on_image))
        parts = [value / shares[-1] for value in on_image]
        entropies.append(-sum(part * math.log(part) for part in parts if part > 0))
        heat = [total + value / num_tokens for total, value in zip(heat, on_image, strict=True)]
    return sum(shares) / num_tokens, sum(entropies) / num_tokens, heat


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_equals_the_models_own_weights_counted_one_by_one(family):
    policy = tiny_policy(family)
    (group,) = policy.encode([two_pictures()])
    ids = torch.arange(40, 40 + NUM_TOKENS)
    found = measure_attention(policy, group, ids)
    weights = weights_of_the_model(policy, group, ids)
    assert len(found) == len(weights) == 2
    for layer, one in zip(weights, found, strict=True):
        torch.testing.assert_close(layer.sum(dim=-1), torch.ones(layer.shape[:2]))
        share, entropy, heat = naive_layer(layer, group, policy.adapter.image_token_id, NUM_TOKENS)
        assert 0 < share < 1
        assert one.share == pytest.approx(share, rel=1e-4)
        assert one.entropy == pytest.approx(entropy, rel=1e-4)
        assert one.heat.tolist() == pytest.approx(heat, rel=1e-3)


def test_linear_attention_looks_at_nothing_and_the_layers_that_attend_are_told():
    policy = tiny_policy("qwen3_5", num_layers=4)
    (group,) = policy.encode([two_pictures()])
    (layer,) = measure_attention(policy, group, torch.arange(40, 40 + NUM_TOKENS))
    assert 0 < layer.share < 1


def test_the_policy_scores_as_before_and_keeps_its_way_of_attending():
    policy = tiny_policy()
    (group,) = policy.encode([problem()])
    ids = torch.arange(40, 43)[None]
    mask = torch.ones_like(ids, dtype=torch.bool)
    before = policy.score([group], ids, mask)["image"].logprobs
    implementation = policy.model.config.get_text_config()._attn_implementation
    measure_attention(policy, group, ids[0])
    assert policy.model.config.get_text_config()._attn_implementation == implementation
    assert implementation != "eager"
    assert torch.equal(policy.score([group], ids, mask)["image"].logprobs, before)
    for layer in policy.model.model.language_model.layers:
        assert not layer.self_attn._forward_hooks


def test_even_attention_has_the_entropy_log_n_and_the_share_of_its_tokens():
    slots = torch.tensor([False, True, True, True, True, False, False, False])
    found = layer_attention(torch.full((2, 3, 8), 1 / 8), slots)
    assert found.share == pytest.approx(4 / 8)
    assert found.entropy == pytest.approx(math.log(4))
    assert found.heat.tolist() == pytest.approx([1 / 8] * 4)


def test_attention_on_one_image_token_has_no_entropy_and_its_place_is_hot():
    slots = torch.tensor([True, True, True, False])
    found = layer_attention(torch.tensor([[[0.0, 0.7, 0.0, 0.3]]]), slots)
    assert (found.share, found.entropy) == (pytest.approx(0.7), pytest.approx(0.0))
    assert found.heat.tolist() == pytest.approx([0.0, 0.7, 0.0])


def test_heads_are_averaged_before_the_entropy_is_taken():
    # Each head looks at one token; together they look at both evenly.
    slots = torch.tensor([True, True, False])
    found = layer_attention(torch.tensor([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]]), slots)
    assert found.entropy == pytest.approx(math.log(2))


def test_an_unattended_picture_gets_nothing_and_tokens_without_attention_have_no_entropy():
    slots = torch.tensor([True, True, False])
    blind = layer_attention(torch.tensor([[[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]]), slots)
    assert blind.share == 0.0
    assert math.isnan(blind.entropy)
    assert not blind.heat.any()
    half = layer_attention(torch.tensor([[[0.0, 0.0, 1.0], [0.5, 0.5, 0.0]]]), slots)
    assert half.share == pytest.approx(0.5)
    assert half.entropy == pytest.approx(math.log(2))


def test_a_record_has_a_cell_for_every_image_token_and_its_heat_is_the_share():
    policy = tiny_policy()
    found = response_attention(policy, two_pictures(), record(), evaluation="mine")
    (group,) = policy.encode([two_pictures()])
    grids = [picture.token_grid for picture in group.pictures]
    assert list(found.grids) == grids
    assert len(found.heat) == sum(rows * columns for rows, columns in grids)
    assert sum(found.heat) == pytest.approx(sum(found.image_share) / 2, rel=1e-4)
    # The bytes of the text, and the end of the turn.
    assert found.num_tokens == len("some words") + 1
    cut = response_attention(
        policy, two_pictures(), record(stop_reason="length"), evaluation="mine"
    )
    assert cut.num_tokens == len("some words")


@pytest.mark.parametrize(
    ("question", "images", "response"), [("none", (), "text"), ("<image>?", None, "")]
)
def test_no_picture_and_no_text_are_refused(question, images, response):
    with pytest.raises(ValueError, match="needs a picture and a response"):
        response_attention(
            tiny_policy(),
            problem(question, images=images),
            record(response, stop_reason="length"),
            evaluation="mine",
        )


def test_the_table_has_a_row_per_layer_and_the_entropy_relative_to_even_attention(tmp_path):
    found = response_attention(tiny_policy(), two_pictures(), record(), evaluation="=mine")
    write_attention([found], tmp_path)
    rows = list(csv.DictReader((tmp_path / "attention.csv").read_text().splitlines()))
    assert [row["layer"] for row in rows] == ["1", "2"]
    # A spreadsheet would run a name that begins like a formula.
    assert rows[0]["evaluation"] == "'=mine"
    even = math.log(len(found.heat))
    for row, entropy in zip(rows, found.image_entropy, strict=True):
        assert float(row["entropy_share"]) == pytest.approx(entropy / even, rel=1e-4)
        assert 0 < float(row["entropy_share"]) <= 1
    (line,) = (tmp_path / "attention.jsonl").read_text().splitlines()
    assert json.loads(line)["heat"] == list(found.heat)
