"""Gemma 4 in the forms that its published sizes have, of which the tiny model is a mixture; others are refused by name."""

import json
from copy import deepcopy

import pytest
import torch
from plain_families import plain_logits
from properties import case, image_logprobs, plain_scores, policy_of
from transformers import AutoModelForImageTextToText, Gemma4Config, Gemma4ForConditionalGeneration

from papo.models import load_policy
from papo.models.families import FAMILIES
from papo.models.flops import attending_layers, head_channels
from papo.models.loading import build_policy, check_model
from papo.rollout import SharedPrefillSampler
from papo.training.activations import PassPrecision, PassSizes, activation_bytes

AUDIO = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "output_proj_dims": 32,
    "subsampling_conv_channels": [8, 4],
}
E2B = {
    "text": {
        "use_bidirectional_attention": None,
        "attention_k_eq_v": False,
        "num_kv_shared_layers": 2,  # one of either kind
    },
    "vision": {"standardize": False},
    "audio": AUDIO,
}
DENSE = {
    "text": {
        "hidden_size_per_layer_input": 0,
        "num_kv_shared_layers": 0,
        "use_double_wide_mlp": False,
    },
    "vision": {"use_clipped_linears": False},
    "audio": None,
}


def like(published):
    """A tiny policy whose configuration has what a published one has."""
    tiny = policy_of("gemma4")
    config = tiny.model.config.to_dict()
    text, vision = config["text_config"], config["vision_config"]
    text.pop("per_layer_config", None)
    text |= {"global_head_dim": 32, **published["text"]}
    config |= {"vision_config": {**vision, **published["vision"]}}
    config["audio_config"] = published["audio"]
    torch.manual_seed(0)
    model = Gemma4ForConditionalGeneration(Gemma4Config(**config))
    known = tiny.model.state_dict()
    fitting = {
        name: known[name]
        for name, each in model.state_dict().items()
        if name in known and known[name].shape == each.shape
    }
    model.load_state_dict(fitting, strict=False)
    model.generation_config = deepcopy(tiny.model.generation_config)
    return build_policy(
        model=model.eval(), tokenizer=tiny.encoder.tokenizer, image_processor=tiny.encoder.image_processor,
        min_pixels=None, max_pixels=None, gradient_checkpointing=False, freeze_vision=False, temperature=1.0,
        scoring="auto", head_chunk_size=16,
    )  # fmt: skip


@pytest.mark.parametrize("published", [E2B, DENSE], ids=["E2B", "dense"])
def test_a_published_form_is_scored_and_sampled_as_its_model_says(published):
    policy = like(published)
    groups, ids, mask = case(policy)
    with torch.no_grad():
        expected = plain_scores(policy, groups, ids, mask)[0]
        for scoring in ("padded", "twopass"):
            policy.choose_backend.scoring = scoring
            got = image_logprobs(policy, groups, ids, mask)
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
        sampler = SharedPrefillSampler(
            policy=policy, temperature=1.0, top_p=1.0, top_k=None, max_response_tokens=6, max_rows=8
        )
        drawn = sampler.sample(groups[:1], 1, [1])
        response = drawn.ids[0][drawn.mask[0]]
        said = plain_logits(policy, groups[0], response).gather(1, response[:, None])[:, 0]
    torch.testing.assert_close(drawn.logprobs[0][drawn.mask[0]], said, rtol=0, atol=1e-5)


def test_what_reads_audio_is_neither_trained_nor_lost(tmp_path):
    policy = like(E2B)
    audio = {n for n, _ in policy.model.named_parameters() if "audio" in n}
    assert audio
    assert not any(p.requires_grad for n, p in policy.model.named_parameters() if n in audio)
    assert all(p.requires_grad for n, p in policy.model.named_parameters() if n not in audio)
    policy.save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path).state_dict()
    for name, weight in policy.model.state_dict().items():
        assert torch.equal(weight, again[name]), name


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 8},
            "without enable_moe_block",
        ),
        ({"use_bidirectional_attention": "all"}, "use_bidirectional_attention='all'"),
        ({"hidden_size_per_layer_input": 0}, "num_kv_shared_layers"),
        ({"layer_types": ["full_attention"] * 4, "num_kv_shared_layers": 0}, "see a window"),
    ],
    ids=["experts", "all see all", "shared keys alone", "no windows"],
)  # fmt: skip
def test_another_form_is_refused_before_weights_are_read(tmp_path, changes, named):
    config = policy_of("gemma4").model.config.to_dict()
    config["text_config"] |= changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=named):
        check_model(path=str(tmp_path), hub_id=None, revision=None, trust_remote_code=False)


def test_the_model_without_a_tower_is_another_family(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "gemma4_unified", "vision_config": {}})
    )
    with pytest.raises(ValueError, match=r"no adapter for model family 'gemma4_unified'"):
        check_model(path=str(tmp_path), hub_id=None, revision=None, trust_remote_code=False)


def test_heads_are_counted_as_every_layer_has_them():
    model = policy_of("gemma4").model
    text = model.config.get_text_config()
    layers = [(each.head_dim, each.num_key_value_heads) for each in attending_layers(text)]
    assert layers == 2 * [(16, 2), (32, 1)]
    assert head_channels(text) == 32
    sizes = PassSizes(
        tokens=300, prompt_tokens=300, rows=2, response_tokens=20, patches=280, views=1, row_tokens=150,
        cached_tokens=0, sampled_rows=0,
    )  # fmt: skip
    found = activation_bytes(
        model,
        sizes,
        PassPrecision(width=4, casts=False),
        checkpointing=False,
        second_gradient=0,
        on_gpu=False,
    )
    # At least what every layer reads.
    assert found > 4 * 300 * sum(
        each.weight.shape[1]
        for each in model.model.language_model.layers.modules()
        if hasattr(each, "out_features")
    )


def test_pixels_are_a_budget_of_tokens():
    pictures = policy_of("gemma4").encoder.family_pictures
    token = 12 * 12
    for pixels, tokens in ((1, 70), (139 * token, 70), (140 * token, 140), (9999 * token, 1120)):
        pictures.limit(min_pixels=None, max_pixels=pixels)
        assert pictures.limits == (token, tokens * token)
        patches = FAMILIES["gemma4"].adapter.most_patches(pictures.config, pixels)
        assert patches == (4 * tokens, tokens)
        assert 0.8 * tokens < pictures.layout(100, 80).num_tokens <= tokens
    with pytest.raises(ValueError, match=r"model\.min_pixels"):
        pictures.limit(min_pixels=100 * token, max_pixels=70 * token)


def test_a_processor_of_other_patches_is_refused(tmp_path):
    policy_of("gemma4").save_pretrained(tmp_path)
    (file,) = tmp_path.glob("pre*processor_config.json")
    file.write_text(file.read_text().replace('"patch_size": 6', '"patch_size": 16'))
    with pytest.raises(ValueError, match="patch_size of 16, and the model reads 6"):
        load_policy(
            path=str(tmp_path), hub_id=None, revision=None, dtype="float32", attn_implementation="sdpa",
            min_pixels=None, max_pixels=None, gradient_checkpointing=False, freeze_vision=False,
            temperature=1.0, scoring="auto", head_chunk_size=16, trust_remote_code=False,
        )  # fmt: skip
