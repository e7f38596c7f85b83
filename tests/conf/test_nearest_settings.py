"""Experiments of families that the paper did not train: the nearest published settings, from a named source, and what is ours."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from composing import composed
from omegaconf import OmegaConf
from transformers import Gemma3Config, InternVLConfig, Qwen3_5Config, SmolVLMConfig

from papo.commands import building, run_memory
from papo.parallel import Ranks
from papo.training import check_room, training_settings

EXPERIMENTS = Path(__file__).parents[2] / "conf" / "experiment"
H100 = 79 * 10**9  # of 80 GB, what a run has left beside the context of CUDA

# What the sources say: prompts a rollout and an update, responses, their tokens, learning rate, weight decay, weight of the
# reference KL, warm-up in updates, largest norm of a gradient, GPUs here.
SETTINGS = {
    "grpo_geo3k_qwen3_5_9b": (32, 32, 16, 2048, 1e-6, 0.1, 0.0, 50, 1.0, 8),
    "grpo_internvl3_5_1b": (512, 32, 16, 8192, 1e-6, 0.01, 0.0, 0, 1.0, 1),
    "grpo_geo3k_gemma3_4b": (2, 2, 4, 1024, 5e-6, 0.1, 0.0, 6, 0.1, 1),
    "grpo_geo3k_smolvlm2_2_2b": (8, 8, 16, 1024, 5e-7, 0.01, 0.01, 50, 1.0, 1),
}
SIGLIP = {
    "hidden_size": 1152,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "intermediate_size": 4304,
    "patch_size": 14,
}
# What shapes the parameters of the models, as their configurations on the hub have it, and how many there are.
MODELS = {
    "grpo_geo3k_qwen3_5_9b": (lambda: Qwen3_5Config(), 9.4e9),
    "grpo_internvl3_5_1b": (
        lambda: InternVLConfig(
            text_config={
                "model_type": "qwen3",
                "vocab_size": 151936,
                "hidden_size": 1024,
                "intermediate_size": 3072,
                "num_hidden_layers": 28,
                "num_attention_heads": 16,
                "num_key_value_heads": 8,
                "head_dim": 128,
                "tie_word_embeddings": False,
            },
            tie_word_embeddings=False,
            vision_config={
                "hidden_size": 1024,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "intermediate_size": 4096,
            },
        ),
        1.06e9,
    ),
    "grpo_geo3k_gemma3_4b": (
        lambda: Gemma3Config(
            text_config={
                "vocab_size": 262208,
                "hidden_size": 2560,
                "intermediate_size": 10240,
                "num_hidden_layers": 34,
                "num_attention_heads": 8,
                "num_key_value_heads": 4,
                "head_dim": 256,
            },
            vision_config={**SIGLIP, "image_size": 896, "vision_use_head": False},
            mm_tokens_per_image=256,
        ),
        4.3e9,
    ),
    "grpo_geo3k_smolvlm2_2_2b": (
        lambda: SmolVLMConfig(
            text_config={
                "model_type": "llama",
                "vocab_size": 49280,
                "hidden_size": 2048,
                "intermediate_size": 8192,
                "num_hidden_layers": 24,
                "num_attention_heads": 32,
                "num_key_value_heads": 32,
            },
            vision_config={**SIGLIP, "image_size": 384},
            scale_factor=3,
        ),
        2.25e9,
    ),
}

each = pytest.mark.parametrize("name", SETTINGS)


def experiment(name, *overrides):
    return composed("train", [f"+experiment={name}", *overrides])


def told(name, monkeypatch, *overrides):
    """What the memory of the experiment depends on, with the published model on the meta device."""
    config = experiment(name, *overrides)
    found = SimpleNamespace(location=config.model.hub_id, config=MODELS[name][0]())
    monkeypatch.setattr(run_memory, "check_model", lambda **_: found)
    return run_memory.unloaded_run_memory(
        config,
        training_settings(OmegaConf.to_container(config.training, resolve=True)),
        available=H100,
        ranks=Ranks(),
        objective=building.make_objective(config),
        make_optimizer=building.instantiate(config.optimizer, without=("weight_decay_of",)),
        on_gpu=True,
        shards=SETTINGS[name][-1],
    )


def test_the_experiments_that_say_so_are_these():
    files = {path.stem: path.read_text("utf-8") for path in EXPERIMENTS.glob("*.yaml")}
    said = {name for name, text in files.items() if "nearest published settings" in text}
    assert said == set(SETTINGS) == set(MODELS)


@each
def test_the_file_names_its_source_to_the_commit_and_what_is_ours(name):
    lines = (EXPERIMENTS / f"{name}.yaml").read_text("utf-8").splitlines()
    assert lines[1].startswith("# Row: none of the paper; nearest published settings: ")
    assert lines[2] == f"# Run: python train.py +experiment={name}"
    assert lines[4] == "# Expect: not published"
    assert re.match(r"# Source: https://github.com/[^/]+/[^/]+/blob/[0-9a-f]{40}/", lines[5])
    assert lines[6].startswith("# Ours: ")


@each
def test_the_source_s_settings_are_the_experiment_s(name):
    config = experiment(name)
    assert (
        config.training.prompts_per_rollout,
        config.training.prompts_per_minibatch,
        config.rollout.num_responses,
        config.rollout.max_response_tokens,
        config.optimizer.lr,
        config.optimizer.weight_decay,
        config.objective.beta,
        config.schedule.warmup_updates,
        config.training.max_grad_norm,
        config.trainer.devices if name.endswith("9b") else 1,
    ) == SETTINGS[name]
    assert (config.objective.clip_low, config.objective.clip_high) == (0.2, 0.2)
    assert (config.rollout.temperature, config.rollout.top_p) == (1.0, 1.0)
    assert config.objective.average == "token"
    assert set(building.make_objective(config).weights(progress=0.0)) == {"surrogate", "kl_ref"}
    assert config.reward.accuracy_weight == (0.8 if "smolvlm" in name else 0.9)


@each
def test_the_published_model_has_room_on_its_gpus_and_not_on_small_ones(name, monkeypatch):
    run = told(name, monkeypatch)
    size = sum(parameter.numel() for parameter in run.memory.model.parameters())
    assert size == pytest.approx(MODELS[name][1], rel=0.1)
    check_room(run.memory, name=name, available=H100, instead=run.instead)
    with pytest.raises(MemoryError, match=r"at the peak"):
        check_room(run.memory, name=name, available=8 * 10**9, instead=run.instead)


def test_a_way_of_scoring_that_does_not_fit_is_refused_before_anything_is_loaded(monkeypatch):
    with pytest.raises(ValueError, match=r"sliding windows. Set model.scoring=auto"):
        told("grpo_geo3k_gemma3_4b", monkeypatch, "model.scoring=split")


def test_the_method_of_this_project_goes_on_top():
    config = experiment("grpo_geo3k_smolvlm2_2_2b", "objective=papo_g")
    assert "perception_kl" in building.make_objective(config).weights(progress=0.0)
