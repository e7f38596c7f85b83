import json
import threading
from dataclasses import replace

import pytest
import torch
from model_fixtures import mixed_problems, noise_image, problem, tiny_policy

from papo.models import (
    build_byte_tokenizer,
    check_model,
    load_encoder,
    load_policy,
    meta_model,
)

LOAD = {
    "hub_id": None,
    "revision": None,
    "dtype": "float32",
    "attn_implementation": "sdpa",
    "min_pixels": None,
    "max_pixels": None,
    "gradient_checkpointing": False,
    "freeze_vision": False,
    "temperature": 1.0,
    "scoring": "auto",
    "head_chunk_size": 64,
    "trust_remote_code": False,
}
CHECK = {"revision": None, "trust_remote_code": False}


def test_the_byte_tokenizer_returns_any_text():
    tokenizer = build_byte_tokenizer("qwen2_5_vl")
    text = "∠ABC = 30°, 中文, \\frac{1}{2}\n\t€"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("question", ["no marker", "<image><image>"])
def test_markers_must_match_images(question):
    with pytest.raises(ValueError, match="markers for 1 images"):
        tiny_policy().encode([problem(question)])


def test_image_tokens_written_in_a_question_are_an_error():
    with pytest.raises(ValueError, match="one image token per image"):
        tiny_policy().encode([problem("<image> <|image_pad|>")])


def test_a_system_prompt_is_a_turn_before_the_question(family):
    encoder = tiny_policy(family).encoder
    plain = problem()
    told = replace(plain, system_prompt="Look twice.")
    assert (
        encoder.render(told)
        == f"<|im_start|>system\nLook twice.<|im_end|>\n{encoder.render(plain)}"
    )
    ids = encoder.tokenize(told, encoder.render(told), encoder.layouts(told.images))
    assert encoder.prompt_length(told) == len(ids)
    assert encoder.prompt_length(told) > encoder.prompt_length(plain)


def test_the_tokens_of_a_prompt_are_its_text_with_one_entry_per_picture():
    encoder = tiny_policy().encoder
    each = problem("See <image> and <image>!", images=(noise_image(56, 56), noise_image(84, 56)))
    tokens = encoder.tokens(each)
    slots = [token for token in tokens if token.startswith("<|image_pad|>")]
    counts = [picture.num_tokens for picture in encoder.layouts(each.images)]
    assert slots == [f"<|image_pad|> x {count}" for count in counts]
    joined = "".join(token.partition(" x ")[0] if token in slots else token for token in tokens)
    assert joined == encoder.render(each)


def test_what_makes_prompts_loads_without_weights_and_is_known_by_its_identity(tmp_path):
    policy = tiny_policy()
    policy.save_pretrained(tmp_path)
    settings = {"path": str(tmp_path), "min_pixels": None, "max_pixels": None}
    common = {key: LOAD[key] for key in ("hub_id", "revision", "trust_remote_code")}
    whole = load_policy(**{**LOAD, **settings}).encoder
    for weights in tmp_path.glob("*.safetensors"):
        weights.unlink()
    encoder = load_encoder(**common, **settings)
    for each in mixed_problems():
        assert encoder.tokens(each) == whole.tokens(each)
    assert encoder.identity() == whole.identity()
    smaller = load_encoder(**common, **{**settings, "max_pixels": 1000})
    assert smaller.identity() != encoder.identity()
    encoder.tokenizer.chat_template += " "
    assert encoder.identity() != whole.identity()


def test_a_thought_opened_by_the_template_is_given_to_the_grader():
    policy = tiny_policy()
    tokenizer = policy.encoder.tokenizer
    tokenizer.chat_template = tokenizer.chat_template.replace("assistant\n", "assistant\n<think>\n")
    groups = policy.encode([problem()])
    ids = torch.tensor([tokenizer("</think> \\boxed{1}", add_special_tokens=False)["input_ids"]])
    mask = torch.ones_like(ids, dtype=torch.bool)
    assert policy.decode_responses(groups, ids, mask) == ("<think>\n</think> \\boxed{1}",)


def test_equal_seeds_give_equal_weights_and_leave_the_global_generator_alone():
    state = torch.get_rng_state()
    first, second, other = (tiny_policy(seed=s).model.state_dict() for s in (3, 3, 4))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


def test_a_missing_folder_is_named_with_the_key(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.path must be a Hugging Face folder"):
        check_model(path=str(tmp_path), hub_id=None, **CHECK)


def test_no_place_at_all_is_an_error():
    with pytest.raises(ValueError, match=r"set model\.path= or model\.hub_id="):
        check_model(path=None, hub_id=None, **CHECK)


def test_an_unreachable_hub_names_the_model_and_the_override(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"model some/model is not .*model\.path=FOLDER"):
        check_model(path=None, hub_id="some/model", **CHECK)


def test_a_hub_that_does_not_answer_is_given_up_within_seconds(monkeypatch):
    started = threading.Event()

    def silent(self, *args, **kwargs):
        started.set()
        threading.Event().wait(60)

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("papo.storage.hub.ANSWER_SECONDS", 0.1)
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", silent)
    with pytest.raises(FileNotFoundError, match=r"no answer within 0\.1 s.*model\.path=FOLDER"):
        check_model(path=None, hub_id="some/model", **CHECK)
    assert started.is_set()


def test_an_unsupported_family_is_named_with_the_supported_ones(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava"}))
    with pytest.raises(ValueError, match=r"'llava'.*qwen2_5_vl, qwen3_vl"):
        check_model(path=str(tmp_path), hub_id=None, **CHECK)


def changed(folder, name, **changes):
    content = json.loads((folder / name).read_text("utf-8"))
    (folder / name).write_text(json.dumps(content | changes))


def text_alone(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3"}))


def quantised(folder):
    changed(folder, "config.json", quantization_config={"quant_method": "awq"})


def without_processor(folder):
    (folder / "preprocessor_config.json").unlink()


def without_tokenizer(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()


def other_processor(folder):
    changed(folder, "preprocessor_config.json", image_processor_type="CLIPImageProcessorFast")


@pytest.mark.parametrize(
    ("spoil", "family", "message"),
    [
        (text_alone, "qwen2_5_vl", "'qwen3' without a vision tower.*supported: qwen2_5_vl"),
        (quantised, "qwen2_5_vl", "quantised weights .*awq.*model.path="),
        (without_processor, "qwen3_vl", "has no image processor .preprocessor_config.json"),
        (without_tokenizer, "internvl", "has no tokenizer .tokenizer_config.json"),
        (other_processor, "internvl", "CLIPImageProcessorFast.*read with GotOcr2ImageProcessor"),
    ],
)
def test_what_cannot_be_read_is_said_before_weights_are(spoil, family, message, tmp_path):
    policy = tiny_policy(family)
    policy.model.config.save_pretrained(tmp_path)  # no weights
    policy.encoder.save_pretrained(tmp_path)
    check_model(path=str(tmp_path), hub_id=None, **CHECK)
    spoil(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        check_model(path=str(tmp_path), hub_id=None, **CHECK)


def test_a_known_family_around_an_unknown_language_model_is_refused(tmp_path):
    policy = tiny_policy("internvl")
    policy.encoder.save_pretrained(tmp_path)
    config = policy.model.config.to_dict()
    config["text_config"] = {"model_type": "gpt_oss", "num_hidden_layers": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"text_config.model_type of qwen2, qwen3; got 'gpt_oss'"):
        check_model(path=str(tmp_path), hub_id=None, **CHECK)


def test_tiles_of_another_size_than_the_model_reads_are_refused():
    policy = tiny_policy("internvl")
    policy.encoder.image_processor.size = {"height": 28, "width": 28}
    with pytest.raises(ValueError, match=r"tiles of \(28, 28\) pixels.*\(56, 56\)"):
        type(policy.encoder.family_pictures)(
            policy.encoder.image_processor, policy.encoder.tokenizer, policy.model.config
        )


def test_pixels_of_a_tile_behind_its_last_whole_patch_are_left_out_as_the_tower_leaves_them_out():
    # As of SmolVLM2 2.2B, whose tiles of 384 pixels hold 27 patches of 14.
    policy = tiny_policy("smolvlm")
    config, encoder = policy.model.config, policy.encoder
    config.vision_config.image_size = 58
    torch.manual_seed(0)
    model = type(policy.model)(config).eval()
    processor = type(encoder.image_processor)(
        size={"longest_edge": 116}, max_image_size={"longest_edge": 58}
    )
    pictures = type(encoder.family_pictures)(processor, encoder.tokenizer, config)
    image = noise_image(100, 60)
    patches, [layout] = pictures.process([image])
    assert (layout.num_tiles, layout.num_patches) == (5, 5 * 16)
    pixels = processor(images=[image], return_tensors="pt")["pixel_values"]
    assert pixels.shape[-2:] == (58, 58)
    with torch.no_grad():
        own = type(policy.adapter)(model).vision_features(patches, [layout]).tokens
        expected = model.model.get_image_features(pixel_values=pixels, return_dict=True)
    torch.testing.assert_close(own, torch.cat(list(expected.pooler_output)).flatten(0, -2))


def test_the_check_reads_a_configuration_and_allocates_nothing(tmp_path):
    policy = tiny_policy()
    policy.model.config.save_pretrained(tmp_path)  # a configuration, no weights
    policy.encoder.save_pretrained(tmp_path)
    found = check_model(path=str(tmp_path), hub_id=None, **CHECK)
    lora = {"language": {"r": 4, "alpha": 8, "targets": ["q_proj"]}}
    whole, frozen, adapted = (
        meta_model(found.config),
        meta_model(found.config, freeze_vision=True),
        meta_model(found.config, dtype="bfloat16", lora=lora),
    )
    assert {p.device.type for p in adapted.parameters()} == {"meta"}
    sizes = [sum(p.numel() for p in policy.parameters())]
    assert [sum(p.numel() for p in whole.parameters() if p.requires_grad)] == sizes
    assert not any(p.requires_grad for p in frozen.model.visual.parameters())
    assert all(("lora_" in name) == p.requires_grad for name, p in adapted.named_parameters())
    assert {p.dtype for p in adapted.parameters() if not p.requires_grad} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"temperature": 0.0}, r"rollout\.temperature"),
        ({"scoring": "packed"}, r"model\.scoring"),
        ({"num_heads": 3}, "hidden_size=64 over num_heads=3"),
        ({"family": "qwen9"}, r"model\.family"),
    ],
)
def test_impossible_settings_name_their_key(setting, message):
    with pytest.raises(ValueError, match=message):
        tiny_policy(**setting)
