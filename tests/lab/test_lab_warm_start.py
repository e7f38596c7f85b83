import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoTokenizer

from papo.lab import (
    WARM_START,
    PerceptionLabProblems,
    encode_responses,
    evaluate_lab,
    held_out_sets,
    save_untrained_model,
    shape_named,
    weights_sha256,
)
from papo.lab.grading import write_response
from papo.lab.vocabulary import vocabulary
from papo.models.families import SUPPORTED_FAMILIES
from papo.models.loading import check_model
from papo.parallel import Ranks
from papo.rollout import SharedPrefillSampler

SCRIPT = Path(__file__).parents[2] / "scripts" / "warm_start_lab.py"
FILES = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "recipe.json",
}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("warm_start_lab", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up by name.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def recipe():
    return json.loads((WARM_START / "recipe.json").read_text())


@pytest.fixture(scope="module")
def policy(script):
    return script.load(WARM_START)


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_the_shipped_folder_is_whole_and_small():
    assert {path.name for path in WARM_START.iterdir()} == FILES
    assert sum(path.stat().st_size for path in WARM_START.iterdir()) <= 1_500_000


def test_the_shipped_weights_are_those_of_the_recipe(recipe):
    assert weights_sha256(WARM_START) == recipe["weights_sha256"]


def test_the_recipe_is_the_scripts(script, recipe):
    assert recipe["stages"] == json.loads(
        json.dumps([script.asdict(stage) for stage in script.STAGES["rectangle"]])
    )
    assert recipe["command"].startswith("python scripts/warm_start_lab.py --output DIR")
    assert recipe["zipf_exponent"] == script.ZIPF_EXPONENT


def settings_of(folder, name):
    """A JSON file without what differs by loading (dtype) or library version, not by content."""

    def strip(value):
        if not isinstance(value, dict):
            return value
        return {k: strip(v) for k, v in value.items() if k not in ("dtype", "transformers_version")}

    return strip(json.loads((folder / name).read_text()))


def test_the_shipped_files_are_what_the_script_builds(tmp_path):
    save_untrained_model(tmp_path, seed=0)
    assert {path.name for path in tmp_path.iterdir()} == FILES - {"recipe.json"}
    for name in ("config.json", "generation_config.json", "preprocessor_config.json"):
        assert settings_of(tmp_path, name) == settings_of(WARM_START, name), name
    built, shipped = (AutoTokenizer.from_pretrained(folder) for folder in (tmp_path, WARM_START))
    assert built.get_vocab() == shipped.get_vocab()
    assert built.chat_template == shipped.chat_template
    built, shipped = (load_file(f / "model.safetensors") for f in (tmp_path, WARM_START))
    assert {name: w.shape for name, w in built.items()} == {n: w.shape for n, w in shipped.items()}


def test_the_model_is_the_real_architecture_in_small():
    model = AutoModelForImageTextToText.from_pretrained(WARM_START)
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert 0.30e6 < sum(p.numel() for p in model.parameters()) < 0.36e6
    text, vision = model.config.text_config, model.config.vision_config
    assert text.hidden_size // text.num_attention_heads == 16
    assert text.rope_parameters["mrope_section"] == [2, 3, 3]
    assert vision.fullatt_block_indexes == list(range(vision.depth))
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_untrained_weights_depend_on_the_seed_and_leave_the_random_state_alone(tmp_path):
    state = torch.random.get_rng_state()
    for name, seed in [("one", 1), ("again", 1), ("two", 2)]:
        save_untrained_model(tmp_path / name, seed=seed)
    assert torch.equal(torch.random.get_rng_state(), state)
    hashes = {name: weights_sha256(tmp_path / name) for name in ("one", "again", "two")}
    assert hashes["one"] == hashes["again"] != hashes["two"]


def test_the_shipped_policy_answers_as_well_as_its_recipe_says(policy, recipe):
    check = recipe["check"]
    engine = SharedPrefillSampler(
        policy=policy, temperature=1.0, top_p=1.0, top_k=None, max_response_tokens=24, max_rows=256
    )
    report = evaluate_lab(
        policy,
        engine,
        held_out_sets(zipf_exponent=1.0, difficulty=1.0, size=check["num_problems"]),
        num_problems=check["num_problems"],
        num_responses=check["num_responses"],
        seed=check["seed"],
        ranks=Ranks(),
    )
    for name, accuracy in check["accuracy"].items():
        got = report.sets[name]
        # The same draws: only floating point of another machine may flip a few of 256 responses.
        assert got.accuracy.value == pytest.approx(accuracy, abs=0.02)
        measured = recipe["measured"][name]["accuracy"]
        assert got.accuracy.low <= measured["high"]
        assert measured["low"] <= got.accuracy.high
        # What the warm start is for: it writes well and reads badly.
        assert got.shares["format"].value < 0.03
        assert got.shares["perception"].value > 0.7


def test_the_batch_encoder_gives_what_the_policy_encodes(script, policy):
    problems = PerceptionLabProblems(
        seed=1, prior="training", zipf_exponent=1.0, difficulty=1.0, size=6
    )
    fast = script.BatchEncoder(policy)(list(problems))
    for one, other in zip(fast, policy.encode(list(problems)), strict=True):
        assert one.problem is not None
        assert one.problem.id == other.problem.id
        assert torch.equal(one.prompt_ids, other.prompt_ids)
        assert torch.equal(one.position_ids, other.position_ids)
        assert torch.equal(one.patches, other.patches)
        assert one.pictures == other.pictures
        assert one.next_position == other.next_position


def test_the_shipped_policy_can_see(policy):
    # Its encoder knows the digits although it often guesses: a true reading is likelier than the
    # same response to another picture's numbers.
    problems = list(
        PerceptionLabProblems(seed=9, prior="uniform", zipf_exponent=1.0, difficulty=1.0, size=64)
    )
    right = [write_response(p.truth["operation"], p.truth["a"], p.truth["b"]) for p in problems]
    wrong = [
        write_response(
            p.truth["operation"], *((n - 1) % 8 + 2 for n in (p.truth["a"], p.truth["b"]))
        )
        for p in problems
    ]
    scores = []
    groups = policy.encode(problems)
    for texts in (right, wrong):
        ids, mask = encode_responses(policy.encoder.tokenizer, texts)
        with torch.no_grad():
            result = policy.score(groups, ids, mask)
        scores.append(result["image"].logprobs.sum(dim=1))
    assert (scores[0] > scores[1]).float().mean() > 0.75


def test_the_script_makes_a_loadable_folder_and_repeats_itself(script, tmp_path, one_thread):
    recipes = [
        script.make_warm_start(
            tmp_path / name,
            shape=shape_named("rectangle"),
            seed=7,
            family=script.SHIPPED_FAMILY,
            sloppiness=sloppiness,
            max_steps=2,
            num_measured=4,
            console=Console(quiet=True),
        )
        for name, sloppiness in (("one", 0.7), ("again", 0.7), ("other", 0.95))
    ]
    assert recipes[0]["weights_sha256"] == recipes[1]["weights_sha256"]
    assert recipes[0]["weights_sha256"] != recipes[2]["weights_sha256"]
    assert [recipe["stages"][-1]["sloppiness"] for recipe in recipes] == [0.7, 0.7, 0.95]
    assert recipes[0]["command"].endswith("--seed 7 --steps 2")
    assert recipes[2]["command"].endswith("--seed 7 --sloppiness 0.95 --steps 2")
    assert {path.name for path in (tmp_path / "one").iterdir()} == FILES
    assert weights_sha256(tmp_path / "one") == recipes[0]["weights_sha256"]
    trained = script.load(tmp_path / "one").state_dict()
    save_untrained_model(tmp_path / "untrained", seed=7)
    untrained = script.load(tmp_path / "untrained").state_dict()
    moved = {name for name in trained if not torch.equal(trained[name], untrained[name])}
    assert any("visual" in name for name in moved)
    assert any("language_model" in name for name in moved)


IMAGE_TOKENS = {"gemma4": 64}
"""Of a picture of the lab, where they are not 4 as of the shipped model."""


@pytest.mark.parametrize("family", SUPPORTED_FAMILIES)
def test_a_lab_model_of_every_family_loads_learns_and_speaks_words(
    script, tmp_path, one_thread, monkeypatch, family
):
    torch.set_num_threads(1)
    monkeypatch.setattr(script, "BATCH_SIZE", 8)
    shape = shape_named("rectangle")
    script.write_untrained(tmp_path, family=family, seed=7, shape=shape)
    assert {path.name for path in tmp_path.iterdir()} == FILES - {"recipe.json"}
    check_model(path=str(tmp_path), hub_id=None, revision=None, trust_remote_code=False)
    policy = script.load(tmp_path)
    problems = PerceptionLabProblems(
        seed=1, prior="training", zipf_exponent=1.0, difficulty=1.0, size=2
    )
    (group,) = groups = policy.encode([problems[0]])
    tokenizer = policy.encoder.tokenizer
    assert [picture.num_tokens for picture in group.pictures] == [IMAGE_TOKENS.get(family, 4)]
    assert tokenizer.unk_token_id not in group.prompt_ids

    stage = replace(script.STAGES["rectangle"][0], steps=3, learning_rate=4e-2)
    losses = list(script.train_stage(policy, stage, 0, seed=1, shape=shape))
    assert losses[-1] < losses[0] - 0.5  # nats per token; of that many words 5 at random

    engine = SharedPrefillSampler(
        policy=policy, temperature=1.0, top_p=1.0, top_k=None, max_response_tokens=8, max_rows=4
    )
    said = engine.sample(groups, 4, [1]).texts
    assert any(said)
    assert {word for text in said for word in text.split()} <= set(vocabulary(shape))
    text = write_response("sum", 2, 3)
    ids, mask = encode_responses(tokenizer, [text])
    assert policy.decode_responses(groups, ids, mask) == (text,)


def test_the_script_makes_a_policy_of_another_family(script, tmp_path, one_thread):
    recipe = script.make_warm_start(
        tmp_path / "new",
        shape=shape_named("rectangle"),
        seed=7,
        family="qwen3_5",
        sloppiness=None,
        max_steps=2,
        num_measured=4,
        console=Console(quiet=True),
    )
    assert recipe["command"].endswith("--seed 7 --family qwen3_5 --steps 2")
    assert {path.name for path in (tmp_path / "new").iterdir()} == FILES
    policy = script.load(tmp_path / "new")
    types = policy.model.config.text_config.layer_types
    assert types == [*["linear_attention"] * 3, "full_attention"]
    # Words stay whole, whatever class of tokenizer transformers has for the family.
    problems = PerceptionLabProblems(
        seed=1, prior="training", zipf_exponent=1.0, difficulty=1.0, size=1
    )
    (group,) = policy.encode([problems[0]])
    shipped = script.load(WARM_START)
    assert torch.equal(group.prompt_ids, shipped.encode([problems[0]])[0].prompt_ids)


def test_the_script_makes_a_policy_of_the_other_world(script, tmp_path, one_thread):
    recipe = script.make_warm_start(
        tmp_path / "new",
        shape=shape_named("quadrilateral"),
        seed=7,
        family=script.SHIPPED_FAMILY,
        sloppiness=None,
        max_steps=2,
        num_measured=4,
        console=Console(quiet=True),
    )
    assert recipe["command"].endswith("--seed 7 --shape quadrilateral --steps 2")
    last = script.STAGES["quadrilateral"][-1]
    assert recipe["stages"][-1]["sloppiness"] == last.sloppiness > 0
    assert {path.name for path in (tmp_path / "new").iterdir()} == FILES
    vocabulary = AutoTokenizer.from_pretrained(tmp_path / "new").get_vocab()
    assert {"c", "d", "perimeter"} <= vocabulary.keys()
    assert script.MAX_RESPONSE_TOKENS["quadrilateral"] > 39


def test_the_script_refuses_a_folder_that_holds_something(script, tmp_path):
    (tmp_path / "precious").write_text("")
    with pytest.raises(SystemExit, match="--output"):
        script.main(["--output", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_the_script_refuses_impossible_settings(script, tmp_path):
    for option, value in (("--steps", "0"), ("--sloppiness", "1.5"), ("--shape", "circle")):
        with pytest.raises(SystemExit, match=option.replace("--", "(--|data.)")):
            script.main(["--output", str(tmp_path / "new"), option, value])
    assert not (tmp_path / "new").exists()
