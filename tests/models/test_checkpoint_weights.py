"""What a server is given is what a saved copy of the policy holds."""

import pytest
import torch
from model_fixtures import tiny_policy
from transformers import AutoModelForImageTextToText

from papo.models import checkpoint_weights

LORA = {
    "language": {"r": 2, "alpha": 6, "targets": ["q_proj", "down_proj"]},
    "vision": {"r": 3, "alpha": 3, "targets": ["qkv"]},
}


def some_training(policy):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(0.1 * noise.to(parameter.dtype))
    return policy


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("lora", [None, LORA], ids=["all weights", "adapters"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_weights_are_those_of_the_saved_policy(family, lora, dtype, tmp_path):
    policy = tiny_policy(family) if lora is None else tiny_policy(family, lora=lora)
    for name, parameter in policy.named_parameters():
        if "lora_" not in name:
            parameter.data = parameter.data.to(dtype)
    some_training(policy)
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    found = dict(checkpoint_weights(policy.model))
    for name, parameter in policy.named_parameters():
        assert torch.equal(parameter, before[name]), f"{name} is touched"
    policy.save_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=dtype)
    saved = dict(loaded.named_parameters())
    assert set(found) == set(saved)
    for name, value in saved.items():
        assert found[name].dtype == value.dtype == dtype
        assert torch.equal(found[name], value), name


def test_a_head_of_its_own_is_among_the_weights():
    policy = tiny_policy()
    assert "lm_head.weight" not in dict(checkpoint_weights(policy.model))
    policy.model.lm_head.weight = torch.nn.Parameter(policy.adapter.head_weight.detach().clone())
    assert "lm_head.weight" in dict(checkpoint_weights(policy.model))
