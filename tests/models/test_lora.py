"""LoRA trains its adapters alone, is its own reference when they are off, and exports both ways."""

import sys
from copy import deepcopy

import pytest
import torch
from model_fixtures import tiny_policy
from scoring_cases import case, loss, plain_logprobs
from transformers import AutoModelForImageTextToText

LANGUAGE = {"r": 4, "alpha": 8, "targets": ["q_proj", "v_proj", "down_proj"]}
VISION = {"r": 2, "alpha": 6, "targets": ["qkv", "proj"]}


def lora_policy(family="qwen2_5_vl", language=LANGUAGE, vision=VISION, **overrides):
    torch.manual_seed(0)  # the adapters' first matrix is drawn from the global generator
    return tiny_policy(family, lora={"language": language, "vision": vision}, **overrides)


def after_some_training(policy, steps=3):
    groups, ids, mask = case(policy)
    optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(policy.score(groups, ids, mask)["image"].logprobs).backward()
        optimizer.step()
    return policy


def scores(policy):
    groups, ids, mask = case(policy)
    with torch.no_grad():
        return policy.score(groups, ids, mask)["image"].logprobs


@pytest.mark.parametrize("checkpointing", [False, True])
def test_only_the_adapters_are_trained(family, checkpointing):
    policy = lora_policy(family, gradient_checkpointing=checkpointing)
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    after_some_training(policy)
    changed = {n for n, value in policy.state_dict().items() if not torch.equal(value, before[n])}
    adapters = {name for name in before if "lora_" in name}
    assert changed == adapters
    assert any(".visual." in name for name in adapters)
    assert any(".language_model." in name for name in adapters)


@pytest.mark.parametrize(("part", "rank"), [("language_model", 4), ("visual", 2)])
def test_each_part_has_its_rank_and_its_scale(family, part, rank):
    policy = lora_policy(family)
    down = {n: p for n, p in policy.named_parameters() if f".{part}." in n and "lora_A" in n}
    assert down
    assert all(p.shape[0] == rank for p in down.values())
    layers = [
        m for n, m in policy.model.named_modules() if hasattr(m, "scaling") and "lora" not in n
    ]
    layers = [m for m in layers if isinstance(m.scaling, dict) and m.r["default"] == rank]
    assert {m.scaling["default"] for m in layers} == {{4: 8 / 4, 2: 6 / 2}[rank]}


@pytest.mark.parametrize(
    ("language", "vision", "trained"),
    [(LANGUAGE, None, "language_model"), (None, VISION, "visual")],
)
def test_one_part_alone(family, language, vision, trained):
    policy = lora_policy(family, language=language, vision=vision)
    trainable = [name for name, p in policy.named_parameters() if p.requires_grad]
    assert trainable
    assert all(f".{trained}." in name and "lora_" in name for name in trainable)
    assert not any("patch_embed" in name for name in trainable)  # a convolution named proj
    # A tower without adapters is frozen, so its features are kept.
    assert (policy.reader.vision_cache is None) == (vision is not None)


def test_new_adapters_change_nothing(family):
    assert torch.equal(scores(lora_policy(family)), scores(tiny_policy(family)))


def test_the_reference_is_the_initial_policy_to_the_bit(family):
    policy = after_some_training(lora_policy(family))
    initial = scores(tiny_policy(family))
    trained = scores(policy)
    assert float((trained - initial).abs().max()) > 1e-3
    with policy.reference_context():
        assert torch.equal(scores(policy), initial)
    assert torch.equal(scores(policy), trained)


def test_the_reference_context_leaves_what_is_trainable_as_it_was(family):
    for frozen in (False, True):
        policy = lora_policy(family).requires_grad_(not frozen)
        trainable = [name for name, p in policy.named_parameters() if p.requires_grad]
        with pytest.raises(RuntimeError, match="stop"), policy.reference_context():
            raise RuntimeError("stop")
        assert [name for name, p in policy.named_parameters() if p.requires_grad] == trainable


def test_a_policy_that_trains_its_weights_is_no_reference_of_itself():
    with pytest.raises(ValueError, match=r"model\.lora"):
        tiny_policy().reference_context()


def test_a_copy_keeps_its_adapters(family):
    policy = after_some_training(lora_policy(family))
    copied = deepcopy(policy)
    expected = scores(policy)
    after_some_training(policy, steps=1)
    assert torch.equal(scores(copied), expected)
    assert copied.has_adapters


def test_the_merged_export_is_a_plain_model_with_the_same_scores(family, tmp_path):
    policy = after_some_training(lora_policy(family))
    policy.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("adapter*"))
    loaded, info = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert_same_scores(policy, loaded)
    # Exporting merges a copy: the policy still has its adapters and its base weights.
    with policy.reference_context():
        assert torch.equal(scores(policy), scores(tiny_policy(family)))


def test_the_adapter_export_loads_on_the_base_model(family, tmp_path):
    policy = after_some_training(lora_policy(family))
    policy.save_pretrained(tmp_path / "adapter", adapter_only=True)
    tiny_policy(family).save_pretrained(tmp_path / "base")
    assert not list((tmp_path / "adapter").glob("model*"))
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "base")
    loaded.load_adapter(tmp_path / "adapter")
    assert_same_scores(policy, loaded)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft 0.21
def test_the_adapter_export_is_read_by_peft(family, tmp_path):
    import peft

    policy = after_some_training(lora_policy(family))
    policy.save_pretrained(tmp_path, adapter_only=True)
    loaded = peft.PeftModel.from_pretrained(tiny_policy(family).model, tmp_path)
    assert_same_scores(policy, loaded.base_model.model)


def assert_same_scores(policy, loaded):
    groups, ids, mask = case(policy)
    expected = scores(policy)
    policy = deepcopy(policy)
    policy.model = loaded.eval()
    with torch.no_grad():
        for row in range(ids.shape[0]):
            length = int(mask[row].sum())
            got = plain_logprobs(policy, groups[row // 3], ids[row, :length])
            torch.testing.assert_close(got, expected[row, :length], rtol=0, atol=1e-5)


def test_saving_an_adapter_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no adapter to save"):
        tiny_policy().save_pretrained(tmp_path, adapter_only=True)


def test_peft_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r"papo\[lora\].*model\.lora=null"):
        lora_policy()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"language": None, "vision": None}, "trains nothing"),
        ({"language": {**LANGUAGE, "targets": ["qkv"]}}, r"'qkv'; it has .*q_proj"),
        ({"language": {**LANGUAGE, "targets": []}}, "at least one target"),
        ({"language": {**LANGUAGE, "r": 0}}, "r=0"),
        ({"language": {"r": 4}}, "keys r, alpha, targets"),
        ({"freeze_vision": True}, r"model\.freeze_vision=true and model\.lora\.vision"),
    ],
)
def test_impossible_settings_name_their_key(setting, message):
    with pytest.raises(ValueError, match=message):
        lora_policy(**setting)


def test_a_part_that_does_not_exist_is_an_error():
    with pytest.raises(ValueError, match="got 'audio'"):
        tiny_policy(lora={"audio": LANGUAGE})


@pytest.mark.parametrize("name", ["language", "language_and_vision"])
def test_the_settings_in_conf_fit_both_families(family, name, repository):
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(repository / "conf"), version_base="1.3"):
        config = compose("train", overrides=["model=tiny_qwen2_5_vl", f"+model/lora={name}"])
    lora = OmegaConf.to_container(config.model.lora)
    trainable = [n for n, p in tiny_policy(family, lora=lora).named_parameters() if p.requires_grad]
    assert any(".language_model." in each for each in trainable)
    assert any(".visual." in each for each in trainable) == (name == "language_and_vision")


def test_adapters_of_half_precision_weights_are_float32():
    from papo.models.lora import add_adapters, lora_parts

    model = tiny_policy().model.to(torch.bfloat16)
    add_adapters(model, lora_parts({"language": LANGUAGE}))
    dtypes = {p.requires_grad: p.dtype for p in model.parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}
