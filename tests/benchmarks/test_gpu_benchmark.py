import json

import pytest
import torch
from transformers import Qwen2_5_VLConfig

from benchmarks.gpu import (
    ADAPTATIONS,
    CONFIGS,
    CPU_WAYS,
    PHASES,
    PUBLISHED_SHAPES,
    Measurement,
    lines,
    load_config,
    main,
    vocabulary_of,
)
from benchmarks.models import build_word_tokenizer
from benchmarks.scoring import group_flops
from papo.models import meta_model


def test_it_runs_on_a_cpu_at_toy_size(tmp_path, capsys):
    output = tmp_path / "gpu.json"
    main(["--toy", "--output", str(output)])
    content = json.loads(output.read_text())
    measured = content["measurements"]
    assert [(each["adaptation"], each["way"]) for each in measured] == [
        (adaptation, way) for adaptation in ADAPTATIONS for way in CPU_WAYS
    ]
    for each in measured:
        assert each["failure"] == ""
        assert each["seconds"]["step"] == pytest.approx(
            sum(each["seconds"][phase] for phase in PHASES)
        )
        assert each["tokens_per_second"] == pytest.approx(2 * 3 * 6 / each["seconds"]["step"])
        assert 0 < each["mfu"] < 1
        assert each["peak_gib"] is None
    assert "tokens/s" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_to_do(capsys):
    with pytest.raises(SystemExit):
        main([])
    assert "--toy runs the same code on a CPU" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "billions"), [("3b", 3.75), ("7b", 8.29)])
def test_the_shipped_configurations_are_those_of_the_published_models(name, billions):
    # Parameter counts of Qwen/Qwen2.5-VL-3B-Instruct and -7B-Instruct.
    content = json.loads((CONFIGS / f"qwen2_5_vl_{name}.json").read_text())
    config = Qwen2_5_VLConfig(**content)
    assert sum(p.numel() for p in meta_model(config).parameters()) / 1e9 == pytest.approx(
        billions, abs=0.005
    )
    assert config.text_config.rope_parameters["mrope_section"] == [16, 24, 24]


def test_the_special_tokens_of_a_configuration_are_those_of_the_tokenizer():
    tokenizer = build_word_tokenizer(vocabulary_of("3b"))
    config = load_config("3b", tokenizer)
    assert len(tokenizer) == config.text_config.vocab_size == 151936
    ids = tokenizer.get_vocab()
    assert config.image_token_id == ids["<|image_pad|>"]
    assert config.vision_end_token_id == ids["<|vision_end|>"] == tokenizer.eos_token_id


def test_a_group_of_the_published_shape_costs_what_it_should():
    # By hand, 3B at P = 1024, T = 512, G = 8: vision 4.16, prompt 5.84, responses 24.2, head 2.55 TFLOP.
    case = next(c for c in PUBLISHED_SHAPES if c.response_tokens == 512 and c.num_responses == 8)
    flops = group_flops(load_config("3b", build_word_tokenizer()), case)
    assert flops.shared / 1e12 == pytest.approx(36.8, abs=0.1)
    assert flops.plain / 1e12 == pytest.approx(106.8, abs=0.1)


def test_what_does_not_fit_is_a_line_with_its_reason():
    missing = Measurement(
        model="7b",
        adaptation="full",
        way="plain",
        shape="P",
        num_prompts=1,
        repetitions=1,
        failure="out of memory",
    )
    assert lines([missing]).splitlines()[1].endswith("out of memory")
