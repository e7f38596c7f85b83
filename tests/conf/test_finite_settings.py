"""No setting is infinite or no number at all, whichever command reads it and wherever it stands."""

import itertools
import math

import pytest
from composing import composed
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from papo.commands.evaluation import plan as evaluation
from papo.commands.training import plan as training
from papo.rollout import check_sampling
from papo.training import training_settings

# Together they hold every group of settings that has a number.
COMPOSITIONS = {
    "the lab": (training, "train", []),
    "a table": (training, "train", ["data=geometry3k", "reward=math_partly_labelled"]),
    "files": (training, "train", ["data=virl39k_original", "masking=semantic"]),
    "adapters": (training, "train", ["+model/lora=language_and_vision", "masking=noise"]),
    "a published run": (training, "train", ["+experiment=papo_d_3b"]),
    "a random model": (training, "train", ["model=tiny_qwen3_vl", "masking=semantic_policy"]),
    "an arm": (training, "train", ["+sweep=lab_collapse"]),
    "views and probe": (
        evaluation,
        "evaluate",
        ["views=vision", "probe=perception", "audit=grounding"],
    ),
    "a benchmark": (evaluation, "evaluate", ["benchmark=geometry3k"]),
    "pictures in an archive": (evaluation, "evaluate", ["benchmark=virl39k_original"]),
}
MAY_BE = {("training.max_grad_norm", math.inf): "clipping is off"}


def numbers(node, key=""):
    """The keys whose value is a number, null (a number that is not set) or read from another key."""
    if isinstance(node, dict):
        for name, value in node.items():
            # The name of an arm's setting has dots of its own.
            yield from numbers(value, f"{key}[{name}]" if "." in str(name) else f"{key}.{name}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from numbers(value, f"{key}[{index}]")
    elif node is None or str(node).startswith("${") or type(node) in (int, float):
        yield key.lstrip(".")


@pytest.fixture(autouse=True)
def no_command(monkeypatch):
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_every_number_has_to_be_finite(name):
    command, *composition = COMPOSITIONS[name]
    config = composed(*composition)
    keys = list(numbers(OmegaConf.to_container(config, resolve=False)))
    assert len(keys) > 30
    values = itertools.cycle([math.inf, -math.inf, math.nan, ".inf", "-.INF"])
    for key in keys:
        value = next(values)
        if any(key.endswith(name) and value == known for name, known in MAY_BE):
            value = next(values)
        changed = config.copy()
        OmegaConf.update(changed, key, value, merge=False)
        with pytest.raises(ValueError, match="finite number") as error:
            command.make_plan(changed)
        assert f"Set {key.partition('[')[0]}" in str(error.value), key


def test_infinity_is_a_setting_where_it_turns_clipping_off():
    config = composed("train", [f"{key}={value}" for key, value in MAY_BE])
    assert training.make_plan(config).settings.max_grad_norm == math.inf


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_the_parts_refuse_what_the_commands_refuse(value):
    sampling = {"temperature": 1.0, "top_p": 1.0, "top_k": None, "max_response_tokens": 1}
    for key in ("temperature", "top_p"):
        with pytest.raises(ValueError, match=rf"rollout\.{key}"):
            check_sampling(**{**sampling, key: value})
    settings = {
        "num_rollouts": 1,
        "prompts_per_rollout": 1,
        "prompts_per_minibatch": 1,
        "prompts_per_microbatch": 1,
        "tokens_per_microbatch": None,
        "max_grad_norm": 1.0,
        "advantage_epsilon": 1e-6,
        "max_resample": 0,
        "keep_accuracy_above": 0.01,
        "keep_accuracy_below": 0.99,
    }
    for key in settings:
        if (f"training.{key}", value) not in MAY_BE:
            with pytest.raises(ValueError, match=rf"training\.{key}"):
                training_settings({**settings, key: value})
