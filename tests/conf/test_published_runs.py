"""Every published run is an experiment file that holds the published values and builds.

Models are built on the meta device from the configurations of the published checkpoints.
"""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from transformers import Qwen2_5_VLConfig, Qwen3VLConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from papo.commands import building
from papo.commands.run_memory import unloaded_run_memory
from papo.data import ProblemTable
from papo.masking import RandomPatchMask
from papo.models import build_byte_tokenizer, loading, meta_model
from papo.parallel import Ranks, check_processes
from papo.rewards import MathReward
from papo.training import check_room, check_share, check_strategy, training_settings

CONF = Path(__file__).parents[2] / "conf"
B3, B7 = "Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct"
B2 = "Qwen/Qwen3-VL-2B-Thinking"

# arXiv:2507.06448v5, Tables 1 and 6 and the ablation without reference KL; official scripts, main@fb63bf4.
# name: model, gamma, eta_full = eta_masked, beta, clip_high, dynamic sampling, seconds per step, overall avg@8
PUBLISHED = {
    "grpo_3b": (B3, 0.0, 0.0, 0.01, 0.3, False, 360.9, 47.92),
    "grpo_7b": (B7, 0.0, 0.0, 0.01, 0.3, False, 258.5, 58.78),
    "papo_g_3b": (B3, 0.02, 0.0, 0.01, 0.3, False, 428.1, 49.92),
    "papo_g_7b": (B7, 0.02, 0.05, 0.01, 0.3, False, 367.1, 61.66),
    "grpo_no_kl_ref_3b": (B3, 0.0, 0.0, 0.0, 0.3, False, None, 50.18),
    "grpo_no_kl_ref_7b": (B7, 0.0, 0.0, 0.0, 0.3, False, None, 61.30),
    "papo_g_no_kl_ref_3b": (B3, 0.01, 0.03, 0.0, 0.3, False, None, 53.15),
    "papo_g_no_kl_ref_7b": (B7, 0.01, 0.03, 0.0, 0.3, False, None, 61.47),
    "dapo_3b": (B3, 0.0, 0.0, 0.0, 0.28, True, None, 52.40),
    "dapo_7b": (B7, 0.0, 0.0, 0.0, 0.28, True, None, 55.01),
    "papo_d_3b": (B3, 0.01, 0.03, 0.0, 0.28, True, None, 55.24),
    "papo_d_7b": (B7, 0.01, 0.03, 0.0, 0.28, True, None, 63.16),
    "grpo_qwen3_vl_2b_thinking": (B2, 0.0, 0.0, 0.01, 0.3, False, None, 46.84),
    "papo_g_qwen3_vl_2b_thinking": (B2, 0.01, 0.0, 0.01, 0.3, False, None, 49.30),
    # Not in the paper: its PAPO_G 3B settings on another data set.
    "papo_geo3k": (B3, 0.02, 0.0, 0.01, 0.3, False, None, None),
}

# config.json of the published checkpoints: what shapes the parameters, and how many there are.
VISION_2_5 = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}
CHECKPOINTS = {
    B3: (
        Qwen2_5_VLConfig,
        {
            "vocab_size": 151936,
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
        },
        {**VISION_2_5, "out_hidden_size": 2048},
        True,
        3_754_622_976,
    ),
    B7: (
        Qwen2_5_VLConfig,
        {
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
        },
        {**VISION_2_5, "out_hidden_size": 3584},
        False,
        8_292_166_656,
    ),
    B2: (
        Qwen3VLConfig,
        {
            "vocab_size": 151936,
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
        },
        {
            "depth": 24,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_heads": 16,
            "out_hidden_size": 2048,
            "deepstack_visual_indexes": [5, 11, 17],
        },
        True,
        2_127_532_032,
    ),
}

# Of 80 GB, what a run has left beside the context of CUDA; and of the 141 GB of an H200.
H100, H200 = 79 * 10**9, 139 * 10**9

every_run = pytest.mark.parametrize("name", PUBLISHED)


def composed(name, *overrides):
    with initialize_config_dir(config_dir=str(CONF.resolve()), version_base="1.3"):
        return compose("train", overrides=[f"+experiment={name}", *overrides])


@pytest.fixture(scope="module")
def checkpoints():
    """Configuration and meta model of each published checkpoint, with the byte tokenizer's ids."""
    vocabulary = build_byte_tokenizer("qwen2_5_vl").get_vocab()
    built = {}
    for hub_id, (family, text, vision, tied, _) in CHECKPOINTS.items():
        config = family(
            text_config={**text, "tie_word_embeddings": tied},
            vision_config=vision,
            tie_word_embeddings=tied,
            image_token_id=vocabulary["<|image_pad|>"],
            video_token_id=vocabulary["<|video_pad|>"],
            vision_start_token_id=vocabulary["<|vision_start|>"],
            vision_end_token_id=vocabulary["<|vision_end|>"],
        )
        built[hub_id] = (config, meta_model(config))
    return built


@pytest.fixture
def hub(checkpoints, monkeypatch):
    """Stands in for the hub: meta models, a byte tokenizer, the family's image processor."""

    class Models:
        from_config = loading.AutoModelForImageTextToText.from_config

        @staticmethod
        def from_pretrained(hub_id, **_):
            return checkpoints[hub_id][1]

    class Tokenizers:
        @staticmethod
        def from_pretrained(hub_id, **_):
            return build_byte_tokenizer("qwen2_5_vl")

    def find_config(path, hub_id, revision, trust_remote_code):
        return hub_id, checkpoints[hub_id][0]

    monkeypatch.setattr(loading, "_find_config", find_config)
    monkeypatch.setattr(loading, "AutoModelForImageTextToText", Models)
    monkeypatch.setattr(loading, "AutoTokenizer", Tokenizers)
    monkeypatch.setattr(
        Qwen2VLImageProcessorPil, "from_pretrained", lambda *a, **k: Qwen2VLImageProcessorPil()
    )


def test_every_experiment_outside_the_lab_is_a_published_run():
    files = {
        path.stem
        for path in (CONF / "experiment").glob("*.yaml")
        # tests/conf/test_nearest_settings.py has those
        if "nearest published settings" not in path.read_text("utf-8")
    }
    others = {name for name in files if not name.startswith("lab")} - {"own_data"}
    assert others == set(PUBLISHED)


def test_own_data_are_trained_on_as_the_published_run_is():
    own, published = composed("own_data", "data.path=F"), composed("papo_g_3b", "trainer=auto")
    for group in ("objective", "optimizer", "rollout", "training", "masking", "fidelity", "reward"):
        assert own[group] == published[group], group
    assert own.model == published.model
    assert own.data.prompt_suffix == published.data.prompt_suffix
    assert own.data.source == "local"


@every_run
def test_the_file_opens_with_row_command_cost_and_expected_number(name):
    text = (CONF / "experiment" / f"{name}.yaml").read_text()
    lines = text.splitlines()
    assert lines[0] == "# @package _global_"
    assert [line.split(":")[0] for line in lines[1:5]] == ["# Row", "# Run", "# Cost", "# Expect"]
    assert lines[2] == f"# Run: python train.py +experiment={name}"
    *_, seconds, overall = PUBLISHED[name]
    assert re.findall(r"[\d.]+ s per step", lines[3]) == (
        [f"{seconds} s per step"] if seconds else []
    )
    assert re.findall(r"overall ([\d.]+)", lines[4]) == ([f"{overall:.2f}"] if overall else [])


@every_run
def test_the_row_has_its_published_values(name):
    config = composed(name)
    model, gamma, eta, beta, clip_high, dynamic, _, _ = PUBLISHED[name]
    objective = config.objective
    assert config.model.hub_id == model
    # GRPO and DAPO have no term of PAPO's.
    weights = {"perception_kl": 0.0, "entropy": 0.0, "masked_entropy": 0.0}
    weights |= building.make_objective(config).weights(progress=0.0)
    assert weights == {
        "surrogate": 1.0,
        "kl_ref": beta,
        "perception_kl": -gamma,
        "entropy": eta,
        "masked_entropy": eta,
    }
    assert (objective.clip_low, objective.clip_high) == (0.2, clip_high)
    # 20 rounds in all (max_try_make_batch), filter on accuracy in (0.01, 0.99).
    assert config.training.max_resample == (19 if dynamic else 0)
    assert (config.training.keep_accuracy_above, config.training.keep_accuracy_below) == (
        0.01,
        0.99,
    )


@every_run
def test_what_all_runs_share_has_its_published_values(name):
    # arXiv:2507.06448v5, Appendix; official config and scripts, main@fb63bf4.
    config = composed(name)
    training, optimizer = config.training, config.optimizer
    assert training.prompts_per_rollout == 384
    assert training.prompts_per_minibatch == 128
    assert training.max_grad_norm == 1.0
    assert training.advantage_epsilon == 1e-6
    assert config.rollout.num_responses == 5
    assert (config.rollout.temperature, config.rollout.top_p) == (1.0, 0.99)
    assert config.rollout.max_response_tokens == 2048
    assert config.data.max_prompt_tokens == 4096
    assert (config.model.min_pixels, config.model.max_pixels) == (200_704, 1_003_520)
    assert config.model.freeze_vision is False
    assert optimizer._target_ == "torch.optim.AdamW"
    assert (optimizer.lr, optimizer.weight_decay) == (1e-6, 1e-2)
    assert list(optimizer.betas) == [0.9, 0.999]
    assert config.objective.dual_clip == 3.0
    assert config.objective.get("gamma_anneal_until") is None
    assert config.objective.get("perception_top_p") is None
    assert config.objective.get("gate", "all") == "all"
    # The numbers were made by the authors' code.
    assert config.fidelity.name == "official"
    assert config.fidelity.masked_policy == "old"
    assert config.objective.average == "token"
    assert (config.masking.ratio, config.masking.grid) == (0.6, "raw")
    assert config.masking.raw_square_pixels == 14
    assert (config.reward.grader, config.reward.accuracy_weight) == ("mathruler", 0.9)
    assert config.reward.format_weight == 0.1
    assert config.data.prompt_suffix == (
        "You first think through the reasoning process as an internal monologue, enclosed within "
        "<think> </think> tags. Then, provide your final answer enclosed within \\boxed{}."
    )


@every_run
def test_data_reward_and_length_fit_the_row(name):
    config = composed(name)
    if name == "papo_geo3k":
        # 2,101 training problems, twice, in whole rollouts of 384.
        assert (config.data.hub_id, config.training.num_rollouts) == ("hiyouga/geometry3k", 10)
    else:
        # 38,870 problems: 101 whole rollouts an epoch, two epochs.
        assert config.data.hub_id == "PAPOGalaxy/PAPO_ViRL39K_train"
        assert config.training.num_rollouts == 2 * (38_870 // 384) == 202
    thinking = PUBLISHED[name][0] == B2
    assert config.reward.format_rule == ("close_think_then_box" if thinking else "think_then_box")


@every_run
def test_the_row_fits_the_gpus_it_was_published_with_in_shards(name, hub):
    text = (CONF / "experiment" / f"{name}.yaml").read_text()
    # Geometry3K's run is not in the paper: the GPUs of its settings' row.
    gpus = int((re.findall(r"(\d) x H100-80G", text) or ["2"])[0])
    config = composed(name, "trainer=sharded", f"trainer.devices={gpus}")
    processes = check_processes(
        devices=config.trainer.devices,
        num_nodes=config.trainer.num_nodes,
        section="trainer.",
        group="trainer=replicas",
        script="train.py",
        ranks=Ranks(),
    )
    check_share(processes, prompts_per_minibatch=config.training.prompts_per_minibatch)
    shards = check_strategy(
        strategy=config.trainer.strategy,
        shard_size=config.trainer.shard_size,
        precision=config.trainer.precision,
        processes=processes,
    )
    assert shards == gpus
    run = told(config, shards).memory
    assert run.fits(H100)
    # On its four GPUs the 2B model has room for all activations.
    assert run.checkpointing == (PUBLISHED[name][0] != B2)
    assert replace(run, checkpointing=True).estimate().moments["the update"] < 62e9


def told(config, shards=1, available=H100, ranks=None):
    """The memory of a run as its configuration says on GPUs, and of other settings."""
    return unloaded_run_memory(
        config,
        training_settings(OmegaConf.to_container(config.training, resolve=True)),
        available=available,
        ranks=ranks or Ranks(),
        objective=building.make_objective(config),
        make_optimizer=building.instantiate(config.optimizer, without=("weight_decay_of",)),
        on_gpu=True,
        shards=shards,
    )


def verdict(name, *overrides, available, shards=1):
    run = told(composed(name, *overrides), shards, available)
    return check_room(run.memory, name="the model", available=available, instead=run.instead)


def test_3b_fits_one_gpu_of_80_gb_in_the_update_and_samples_fewer_rows(hub):
    memory, rows = verdict("papo_g_3b", available=H100)
    for part in ("weights 14.0", "gradient 14.0", "optimizer 28.0", "reference 7.6", "cache"):
        assert f"{part}" in memory
    assert "the largest pass" not in rows
    assert int(re.findall(r"; (\d+) do \(rollout.max_rows\)", rows)[0]) in range(100, 256)
    # Away from the device while it samples, optimiser and reference leave room for all.
    [_] = verdict("papo_g_3b", "trainer.offload_while_sampling=true", available=H100)
    # The weights that a step of PyTorch's own choice would copy are no part of it.
    assert told(composed("papo_g_3b")).memory.estimate().step == 0


def test_what_does_not_fit_is_told_what_would(hub):
    with pytest.raises(MemoryError) as two_views:
        verdict("papo_g_3b", "fidelity=paper", available=H100)
    # Gradients of one view wait for those of the other.
    assert "What fits: +model/lora=language; or trainer=sharded trainer.devices=2." in str(
        two_views.value
    )
    with pytest.raises(MemoryError) as seven:
        verdict("papo_g_7b", available=H100)
    said = str(seven.value)
    assert "about 154.5 GiB at the peak, the update (weights 30.9 GiB" in said
    assert "trainer=sharded trainer.devices=3." in said
    assert verdict("papo_g_7b", available=H100, shards=4)
    assert verdict("papo_g_7b", available=H100, shards=3)
    with pytest.raises(MemoryError, match=r"devices=3\."):
        verdict("papo_g_7b", available=H100, shards=2)
    assert verdict("papo_g_7b", "+model/lora=language", available=H100)
    with pytest.raises(MemoryError, match=r"model\.gradient_checkpointing=true"):
        verdict("papo_g_3b", "model.gradient_checkpointing=false", available=H100)


def test_activations_are_computed_again_only_where_the_device_asks_for_it(hub):
    config = composed("papo_g_3b")
    assert config.model.gradient_checkpointing == "auto"
    [line] = told(config, shards=2, available=H100).notes
    assert line == (
        "gradient checkpointing: on, for with all activations kept the update takes about 121.8 GiB, of "
        "73.6 GiB that is free"
    )
    roomy = told(config, shards=2, available=H200)
    assert roomy.notes[0].startswith("gradient checkpointing: off, for")
    kept = roomy.memory.estimate().moments["the update"]
    for available, again in ((kept, False), (kept - 1, True), (None, False)):
        assert told(config, shards=2, available=available).memory.checkpointing == again


def test_the_update_is_refused_where_it_fits_neither_way(hub):
    with pytest.raises(MemoryError, match=r"about 72\.5 GiB at the peak, the update"):
        verdict("papo_g_3b", available=72 * 2**30)
    assert verdict("papo_g_3b", available=73 * 2**30)


@pytest.mark.parametrize(("setting", "again"), [("true", True), ("false", False)])
def test_what_was_chosen_is_not_decided(hub, setting, again):
    config = composed("papo_g_3b", f"model.gradient_checkpointing={setting}")
    for available in (H100, 10**15):
        run = told(config, available=available)
        assert (run.memory.checkpointing, run.notes) == (again, ())


def test_two_pass_scoring_keeps_what_it_reads_again(hub):
    run = told(composed("papo_g_3b", "model.scoring=twopass"), available=H100)
    assert (run.memory.checkpointing, run.notes) == (False, ())


def test_all_ranks_compute_again_where_one_must(hub):
    class TwoRanks(Ranks):
        def gather(self, value):
            return [value, (True, "the other's reason")]

    run = told(composed("papo_g_3b"), shards=2, available=H200, ranks=TwoRanks(size=2))
    assert (run.memory.checkpointing, run.notes) == (True, ("the other's reason",))


@every_run
def test_every_part_builds_with_the_model_on_the_meta_device(name, hub):
    config = composed(name)
    settings = training_settings(OmegaConf.to_container(config.training, resolve=True))
    assert settings.updates_per_rollout == 3

    policy = building.instantiate(config.model)
    parameters = list(policy.parameters())
    assert {parameter.device.type for parameter in parameters} == {"meta"}
    assert all(parameter.requires_grad for parameter in parameters)
    assert sum(parameter.numel() for parameter in parameters) == CHECKPOINTS[PUBLISHED[name][0]][-1]
    assert policy.encoder.image_processor.size["shortest_edge"] == 200_704
    assert policy.encoder.image_processor.size["longest_edge"] == 1_003_520

    needs = building.make_objective(config).needs
    _, gamma, eta, beta, *_ = PUBLISHED[name]
    assert needs.reference == (beta > 0)
    assert needs.old_views == (("masked",) if gamma > 0 or eta > 0 else ())
    assert isinstance(building.instantiate(config.masking), RandomPatchMask)
    assert isinstance(building.instantiate(config.data), ProblemTable)
    reward = building.instantiate(config.reward)
    assert isinstance(reward, MathReward)
    reward.close()
    rollout = OmegaConf.to_container(config.rollout, resolve=True)
    rollout.pop("num_responses")
    building.instantiate(OmegaConf.create(rollout))(policy=policy)
    optimizer = building.instantiate(config.optimizer, without=("weight_decay_of",))(
        policy.parameters()
    )
    assert isinstance(optimizer, torch.optim.AdamW)
    for callback in config.callbacks.values():
        building.instantiate(callback)
    # The GPU of the recipe need not be here; every other key is the trainer's.
    building.instantiate(config.trainer, without=("offload_while_sampling",))(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False
    )


def test_a_misspelt_key_on_the_command_line_is_refused():
    with pytest.raises(Exception, match="gama"):
        composed("papo_g_3b", "objective.gama=1")


def test_an_experiment_takes_overrides_of_groups_and_values():
    config = composed("papo_geo3k", "model=tiny_qwen2_5_vl", "data.path=FOLDER", "objective=grpo")
    assert config.model._target_ == "papo.models.build_tiny_policy"
    assert config.data.path == "FOLDER"
    assert set(config.objective.terms) == {"surrogate", "kl_ref"}
