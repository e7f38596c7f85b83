import json

import pytest
import yaml

from papo.commands.export import main, push
from papo.commands.model_card import base_licence, copy_processor_files, model_card

CONFIG = {
    "model": {"path": "/home/somebody/models/tiny-qwen", "hub_id": None},
    "data": {"path": "/home/somebody/pictures", "hub_id": None},
    "objective": {"gamma": 0.02, "beta": 0.01, "terms": {"surrogate": {}, "perception_kl": {}}},
    "fidelity": {"name": "paper"},
    "rollout": {"num_responses": 5},
    "training": {"num_rollouts": 60, "prompts_per_rollout": 16},
    "optimizer": {"lr": 1e-6},
}
FACTS = {"seed": 3, "git_commit": "abc123", "versions": {"torch": "2.13.0"}}
ACCURACY = {"value": 0.805, "low": 0.77, "high": 0.84}
RESULT = {
    "metrics": {"rollout_step": 60.0},
    "evaluation": {"after": {"counter-prior": {"accuracy": ACCURACY}}},
}


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    # JSON is YAML.
    for name, content in (("config.yaml", CONFIG), ("run.json", FACTS), ("result.json", RESULT)):
        (folder / name).write_text(json.dumps(content))
    return folder


def front_matter(card):
    _, matter, _ = card.split("---\n", 2)
    return yaml.safe_load(matter)


def test_a_card_says_what_was_trained_how_and_what_it_scores(run):
    card = model_card(run, checkpoint="rollout_60", licence="apache-2.0")
    assert front_matter(card) == {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": ["papo", "grpo", "reinforcement-learning", "visual-reasoning"],
        "license": "apache-2.0",
    }
    for said in (
        "# tiny-qwen, trained with papo",
        "| counter-prior | after | 80.5 [77.0, 84.0] |",
        "| objective | gamma 0.02, beta 0.01 |",
        "| data | pictures |",
        "| seed | 3 |",
        "| commit of papo | abc123 |",
        "terms surrogate, perception_kl",
        "has the licence apache-2.0",
    ):
        assert said in card


def test_a_card_names_no_folder_of_the_machine_that_trained(run):
    assert "/home" not in model_card(run, checkpoint="rollout_60", licence=None)


def test_a_base_model_and_data_of_the_hub_are_named_as_the_hub_finds_them(run):
    config = {
        **CONFIG,
        "model": {"path": None, "hub_id": "Qwen/Qwen2.5-VL-3B-Instruct"},
        "data": {"path": None, "hub_id": "hiyouga/geometry3k"},
    }
    (run / "config.yaml").write_text(json.dumps(config))
    found = front_matter(model_card(run, checkpoint="rollout_60", licence=None))
    assert found["base_model"] == "Qwen/Qwen2.5-VL-3B-Instruct"
    assert found["datasets"] == ["hiyouga/geometry3k"]
    assert "license" not in found


def test_an_evaluation_wins_over_what_the_run_measured_itself(run, tmp_path):
    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    one = {"label": "MathVista", "view": "image", "num_problems": 1000, "accuracy": ACCURACY}
    summary = {"protocol": {"top_k": None, "num_responses": 8}, "sets": [one]}
    (evaluation / "summary.json").write_text(json.dumps(summary))
    card = model_card(run, checkpoint="c", evaluations=[evaluation], licence=None)
    assert "| MathVista | image | 1000 | avg@8 | 80.5 [77.0, 84.0] |" in card
    assert "counter-prior" not in card


def test_an_evaluation_that_has_not_ended_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match=r"no finished evaluation: there is no summary\.json"):
        model_card(run, checkpoint="c", evaluations=[tmp_path], licence=None)


def test_a_run_without_a_measurement_says_so(run):
    (run / "result.json").unlink()
    assert "None were measured." in model_card(run, checkpoint="c", licence=None)


def test_names_from_outside_stay_text(run):
    config = {
        **CONFIG,
        "model": {"path": None, "hub_id": "x\n---\nlicense: mit"},
        "data": {"path": "<script>|", "hub_id": None},
    }
    (run / "config.yaml").write_text(json.dumps(config))
    card = model_card(run, checkpoint="c", licence=None)
    assert front_matter(card)["base_model"] == "x\n---\nlicense: mit"
    assert "license" not in front_matter(card)
    assert "<script>" not in card


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n# Model\n", "apache-2.0"),
        ("---\nlicense: [a, b]\n---\n", None),
        ("---\n{: broken\n---\n", None),
        ("# Model\n", None),
        ("---\nlicense: mit", None),
    ],
)
def test_the_licence_is_what_the_card_of_the_base_model_says(tmp_path, text, licence):
    (tmp_path / "README.md").write_text(text)
    assert base_licence({"path": str(tmp_path)}) == licence


def test_a_base_model_without_a_card_has_no_licence(tmp_path):
    assert base_licence({"path": str(tmp_path)}) is None
    assert base_licence({"hub_id": "nobody/has-this-in-the-cache"}) is None
    assert base_licence({"family": "tiny_qwen2_5_vl"}) is None


def test_processor_files_of_the_base_are_copied_and_code_is_not(tmp_path):
    base, output = tmp_path / "base", tmp_path / "output"
    base.mkdir()
    output.mkdir()
    (base / "video_preprocessor_config.json").write_text("{}")
    (base / "chat_template.jinja").write_text("base")
    (base / "processing.py").write_text("raise SystemExit")
    (output / "chat_template.jinja").write_text("own")
    copy_processor_files({"path": str(base)}, output)
    assert {file.name: file.read_text() for file in output.iterdir()} == {
        "video_preprocessor_config.json": "{}",
        "chat_template.jinja": "own",
    }


def test_what_is_pushed_is_private_unless_the_user_says_so(tmp_path, monkeypatch):
    asked = []

    class Hub:
        def create_repo(self, repository, **options):
            asked.append((repository, options))
            return f"https://hub/{repository}"

        def upload_folder(self, **options):
            asked.append(options)

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    assert push(tmp_path, "me/policy", public=False) == "https://hub/me/policy"
    assert asked == [
        ("me/policy", {"private": True, "exist_ok": True}),
        {"repo_id": "me/policy", "folder_path": tmp_path},
    ]
    push(tmp_path, "me/policy", public=True)
    assert asked[2][1]["private"] is False


def test_a_push_that_cannot_be_is_said_before_a_model_is_loaded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert main([str(tmp_path), str(tmp_path / "out"), "--push", "me/policy"]) == 1
    assert "set HF_TOKEN" in capsys.readouterr().err
    assert main([str(tmp_path), str(tmp_path / "out"), "--push", "not a name"]) == 1
    assert "--push takes OWNER/NAME; got 'not a name'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
