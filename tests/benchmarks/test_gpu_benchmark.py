import sys
from itertools import pairwise

import pytest
import torch

from benchmarks.gpu.__main__ import main
from benchmarks.gpu.budgets import MINUTES, NEEDS_CUDA, SECONDS, budgets
from benchmarks.gpu.random_policy import ARCHITECTURES, architecture
from benchmarks.gpu.runner import START_SECONDS
from benchmarks.gpu.setting import Setting
from benchmarks.scoring import group_case, group_flops
from benchmarks.step_model import Rates, configuration, measured_rates, read_answers
from papo.models import meta_model

ANSWERS = {
    "ceilings": ("tflops", "tb_per_second"),
    "fits": ("peak_gib", "weights_gib", "peak_over_estimate"),
    "decode": ("rows", "ms_a_token", "prefill_s"),
    "decode_parts": ("ms_launching", "ms_layers", "ms_head", "ms_draw"),
    "draws": ("ms_all", "ms_top_p_99", "ms_top_k_50"),
    "parity": ("nats_mean", "nats_max", "share_of_ratios_clipped"),
    "parts": ("ms", "tflop"),
    "split": ("ms_forward", "ms_forward_and_backward", "useful_mfu"),
    "update": ("score_s", "update_s", "update_mfu", "update_s_of_384_prompts"),
    "step": ("rollout_s", "sampled_tokens_per_second", "estimate_gib"),
    "papo_over_grpo": ("ratio",),
    "shards": ("update_s", "share_equal_to_the_bit", "distance_over_movement"),
    "padded": ("ms_forward_and_backward", "useful_mfu"),
}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_cell_answers_at_toy_size(tmp_path, monkeypatch, forked_python):
    # Its worker finds the libraries imported.
    monkeypatch.setattr(sys, "executable", forked_python)
    file = tmp_path / "answers.jsonl"
    main(["toy", "--answers", str(file), "--variant", "model.scoring=padded,rollout.top_k=50"])
    lines = read_answers(file)
    assert [line for line in lines if "failed" in line] == []
    assert lines[0] | {"commit": ""} == {
        **{"cell": "about", "size": "toy", "experiment": "papo_g_3b", "commit": ""}
    }
    variant = "variant:model.scoring=padded,rollout.top_k=50"
    ended = [line["cell"] for line in lines if line.get("event") == "end"]
    assert (
        ended
        == [*ANSWERS, variant]
        == [one.cell for one in budgets(is_toy=True, variants=(variant.partition(":")[2],))]
    )
    for cell, fields in ANSWERS.items():
        found = {key for line in lines if line["cell"] == cell for key in line}
        assert set(fields) <= found, cell
    of = {cell: [one for one in lines if one["cell"] == cell] for cell in ended}
    # 2 prompts x 2 responses, 4 tokens each; as many are trained on as are sampled.
    [step] = [one for one in of["step"] if "prompts" in one]
    assert (step["prompts"], step["responses"], step["mean_tokens"]) == (2, 4, 4)
    assert step["update_s_of_384_prompts"] == pytest.approx(192 * step["update_s"], rel=1e-4)
    # Sampling and scoring take the same policy at the same precision.
    assert all(one["nats_max"] < 0.1 for one in of["parity"] if "nats_max" in one)
    # The shards moved where the whole policy did.
    assert 0 < next(one["distance_over_movement"] for one in of["shards"] if "what" in one) < 0.5
    _, names = measured_rates(lines, Rates())
    assert {"peak", "blocks", "head_float32", "decode_host", "sort", "picture"} <= set(names)
    with pytest.raises(SystemExit):
        main(["report", str(file)])


def test_the_plan_takes_at_most_its_minutes():
    plan = budgets(is_toy=False)
    assert sum(one.seconds for one in plan) + START_SECONDS / 2 <= 60 * MINUTES
    assert [one.cell for one in budgets(is_toy=True)] == [n for n in SECONDS if n not in NEEDS_CUDA]
    # The toy asks all else.
    assert {*ANSWERS, *NEEDS_CUDA} == {*SECONDS}


def test_every_budget_is_of_a_cell():
    from benchmarks.gpu.cells import CELLS

    assert {*CELLS} == {*SECONDS}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_to_do(capsys):
    with pytest.raises(SystemExit):
        main(["device"])
    assert "`toy` runs the same code on a CPU" in capsys.readouterr().err


def test_what_is_measured_is_what_the_experiment_trains():
    with Setting(experiment="papo_g_3b", is_toy=True) as setting:
        plan = setting.plan(prompts=4)
        assert (plan.settings.prompts_per_rollout, plan.settings.updates_per_rollout) == (4, 1)
        config = plan.config
        assert (config.model.dtype, config.trainer.precision) == ("float32", "bf16-mixed")
        assert plan.objective.needs.reference
        assert plan.objective.needs.old_views == ("masked",)
        assert not setting.plan("objective=grpo", prompts=4).objective.needs.views
        policy = setting.policy
        assert {p.dtype for p in policy.parameters()} == {torch.float32}
        assert policy.gradient_checkpointing
        assert policy.choose_backend.scoring == config.model.scoring
        assert policy.temperature == config.rollout.temperature
        with setting.precision():
            one = torch.ones(2, 2)
            assert (one @ one).dtype == torch.bfloat16
        groups = setting.groups(2)
        assert {len(group.prompt_ids) for group in groups} == {setting.sizes.prompt_tokens}
        written = setting.written().sample(groups, 3, (0, 1))
        assert written.mask.shape[0] == 6
        assert written.mask.any(dim=1).all()
        assert (written.mask[:, 1:] <= written.mask[:, :-1]).all()


@pytest.mark.parametrize(("size", "billions"), [("3B", 3.75), ("7B", 8.29)])
def test_the_shipped_configurations_are_those_of_the_published_models(size, billions):
    # Parameter counts of Qwen/Qwen2.5-VL-3B-Instruct and -7B-Instruct.
    config = configuration(size)
    count = sum(p.numel() for p in meta_model(config).parameters())
    assert count / 1e9 == pytest.approx(billions, abs=0.005)
    assert config.text_config.rope_parameters["mrope_section"] == [16, 24, 24]


def test_the_special_tokens_of_a_configuration_are_those_of_the_tokenizer():
    tokenizer, config = architecture(next(iter(ARCHITECTURES)), is_toy=False)
    assert len(tokenizer) == config.text_config.vocab_size == 151936
    ids = tokenizer.get_vocab()
    assert config.image_token_id == ids["<|image_pad|>"]
    assert config.vision_end_token_id == ids["<|vision_end|>"] == tokenizer.eos_token_id


def test_an_architecture_that_is_not_shipped_is_refused_by_name():
    with pytest.raises(ValueError, match=r"got Qwen/Qwen3.*--experiment"):
        architecture("Qwen/Qwen3-VL-2B-Thinking", is_toy=False)


def test_a_group_of_the_published_shape_costs_what_it_should():
    # By hand, 3B at P = 1024, T = 512, G = 8: vision 4.16, prompt 5.84, responses 24.2, head 2.55 TFLOP.
    flops = group_flops(configuration("3B"), group_case(1024, 512, 8))
    assert flops.shared / 1e12 == pytest.approx(36.8, abs=0.1)
    assert flops.plain / 1e12 == pytest.approx(106.8, abs=0.1)


def test_lengths_are_as_ragged_as_a_rollout_whose_mean_is_asked_for():
    with Setting(experiment="papo_g_3b", is_toy=True) as setting:
        lengths = setting.written().sample(setting.groups(2), 50, (0, 1)).mask.sum(dim=1)
        assert 1 <= int(lengths.min()) < int(lengths.max()) <= setting.sizes.limit
        full = setting.written(setting.sizes.limit).sample(setting.groups(1), 3, (0,)).mask
        assert full.all()
        assert full.shape == (3, setting.sizes.limit)


def test_order_of_the_plan_puts_what_may_compile_or_hang_last():
    order = list(SECONDS)
    assert all(order.index(a) < order.index(b) for a, b in pairwise(("ceilings", "fits", "decode")))
    assert min(order.index(name) for name in ("flex", "shards")) > order.index("step")
