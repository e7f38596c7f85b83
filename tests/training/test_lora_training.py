"""A run that trains adapters: its reference is the policy without them, its checkpoints hold them."""

import json

import pytest
import torch
from command import run_command
from lab_module import NUM_RESPONSES, lab_module, lab_policy, parameters, reward_by_row, train

LORA = {"language": {"r": 4, "alpha": 8, "targets": ["q_proj", "v_proj", "down_proj"]}}


def lora_policy(seed=0, **settings):
    torch.manual_seed(seed)  # the adapters' first matrix is drawn from the global generator
    return lab_policy(lora=LORA, **settings)


def lora_module(folder, *, policy=None, **overrides):
    folder.mkdir(exist_ok=True)
    settings = {"beta": 0.1, "num_rollouts": 4, **overrides}
    policy = policy or lora_policy()
    module = lab_module(folder, policy=policy, reward=reward_by_row(NUM_RESPONSES), **settings)
    # With a state of its own, which a resumed run must have too.
    module.policy_module.make_optimizer = lambda p: torch.optim.AdamW(p, lr=1e-2)
    return module


def every_rollout():
    from papo.training.checkpoints import RolloutCheckpoint

    return RolloutCheckpoint(every_rollouts=1, keep_last=9)


def checkpoint(folder, step):
    return folder / "checkpoints" / f"rollout_{step:06d}.ckpt"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora") / "run"
    module = lora_module(folder)
    return folder, module, train(module, folder, every_rollout())


def test_the_reference_is_the_policy_without_a_second_copy(tmp_path):
    from papo.training import ReferenceModule

    policy = lora_policy()
    reference = ReferenceModule(policy)
    assert reference.policy is policy
    assert not list(reference.parameters())
    assert any(p.requires_grad for p in policy.parameters())


def test_the_reference_stays_the_policy_the_run_began_with(finished):
    _, module, _ = finished
    batch = module.last_step.rollout.batch
    plain = lab_policy()
    arguments = (batch.groups, batch.response_ids, batch.response_mask)
    with torch.no_grad():
        expected = plain.score(*arguments)["image"].logprobs
        moved = module.policy_module.policy.score(*arguments)["image"].logprobs
    torch.testing.assert_close(batch.ref_logprobs, expected, rtol=0, atol=1e-6)
    assert float((moved - expected).abs().max()) > 1e-3
    assert module.last_step.metrics["loss/kl_ref"] > 1e-4


def test_only_adapters_are_trained_and_saved(finished):
    folder, _, after = finished
    before = parameters(lora_policy())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "lora_" in name}
    saved = torch.load(checkpoint(folder, 4), weights_only=True)["state_dict"]
    assert {name.removeprefix("policy_module.policy.") for name in saved} == changed


def test_a_resumed_run_ends_as_the_uninterrupted_one(finished, tmp_path):
    folder, _, expected = finished
    module = lora_module(tmp_path, policy=lora_policy(seed=7))
    got = train(module, tmp_path, every_rollout(), checkpoint=checkpoint(folder, 2))
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    states = [
        torch.load(checkpoint(run, 4), weights_only=True)["optimizer_states"][0]["state"]
        for run in (tmp_path, folder)
    ]
    for key in ("exp_avg", "exp_avg_sq", "step"):
        assert all(torch.equal(states[0][i][key], states[1][i][key]) for i in states[1])
    rows = [(run / "metrics.csv").read_text().splitlines() for run in (tmp_path, folder)]
    assert rows[0][1:] == rows[1][3:]


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_a_checkpoint_over_another_base_is_refused(finished, tmp_path, beta):
    """Also without a reference: the base is in no checkpoint."""
    folder, *_ = finished
    policy = lora_policy()
    with torch.no_grad():
        next(p for p in policy.parameters() if not p.requires_grad).add_(1e-3)
    module = lora_module(tmp_path, policy=policy, beta=beta)
    with pytest.raises(ValueError, match=r"frozen weights.*run_dir"):
        train(module, tmp_path, checkpoint=checkpoint(folder, 2))


def test_a_frozen_tower_is_not_saved_and_is_resumed(tmp_path):
    def module(folder):
        return lora_module(folder, policy=lab_policy(freeze_vision=True), num_rollouts=2)

    expected = train(module(tmp_path / "a"), tmp_path / "a", every_rollout())
    saved = torch.load(checkpoint(tmp_path / "a", 1), weights_only=True)["state_dict"]
    assert saved
    assert not any(".visual." in name for name in saved)
    got = train(module(tmp_path / "b"), tmp_path / "b", checkpoint=checkpoint(tmp_path / "a", 1))
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_an_exported_adapter_run_is_the_trained_policy(finished, tmp_path):
    from lab_module import default_config
    from omegaconf import OmegaConf
    from transformers import AutoModelForImageTextToText

    folder, module, _ = finished
    config = OmegaConf.merge(default_config(), {"model": {"lora": LORA}})
    config.model.temperature = config.rollout.temperature
    (folder / "config.yaml").write_text(OmegaConf.to_yaml({"model": config.model}))
    from papo.commands.export import export

    export(folder, tmp_path / "exported")
    assert "lora" not in json.dumps(json.loads((tmp_path / "exported/config.json").read_text()))
    exported = AutoModelForImageTextToText.from_pretrained(tmp_path / "exported").state_dict()
    name = "model.language_model.layers.0.self_attn.q_proj"
    layer = module.policy_module.policy.model.get_submodule(name)
    expected = layer.get_base_layer().weight + layer.get_delta_weight("default")
    torch.testing.assert_close(exported[f"{name}.weight"], expected)
    assert not torch.equal(expected, layer.get_base_layer().weight)


def test_lora_trains_from_the_command_line(tmp_path):
    outcome = run_command("+model/lora=language", "objective.beta=0.01", f"run_dir={tmp_path}")
    assert outcome.code == 0, outcome.stderr
    saved = torch.load(checkpoint(tmp_path, 2), weights_only=True)["state_dict"]
    assert saved
    assert all(".language_model." in name and "lora_" in name for name in saved)
