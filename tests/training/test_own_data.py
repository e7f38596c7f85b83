"""Training on data of one's own: pictures that nobody could see, and settings that were the lab's, are told first."""

import csv
import json
from functools import wraps

import pytest
import yaml
from command import run_command
from PIL import Image

TINY = ("model=tiny_qwen2_5_vl", "reward=math", "data=local", "rollout.max_response_tokens=4")


def write(folder, *, column="image", question="How many?", num=6, splits=("train", "test")):
    rows = []
    for number in range(num):
        Image.new("RGB", (60, 40), (number * 40, 0, 200)).save(folder / f"{number}.png")
        rows.append({"problem": question, "answer": number, column: f"{number}.png"})
    for split in splits:
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return f"data.path={folder}"


def test_pictures_of_questions_without_markers_are_seen_in_training(tmp_path):
    outcome = run_command(*TINY, write(tmp_path), f"run_dir={tmp_path / 'run'}")
    assert outcome.code == 0, outcome.stderr
    assert "6 of 6 questions with pictures have no <image> marker" in outcome.stdout
    assert "is read as: question 'problem', answer 'answer', pictures 'image'" in outcome.stdout
    assert "kept 6 of 6 problems, 6 with pictures" in outcome.stdout
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(float(row["loss/perception_kl"]) > 0 for row in rows)
    assert all(float(row["masking/masked_fraction"]) > 0 for row in rows)


@pytest.fixture
def no_tiny_model(monkeypatch):
    """Fails where a model would be built."""
    import papo.models

    @wraps(papo.models.build_tiny_policy)
    def build(**_):
        raise AssertionError("a model was built before the data were looked at")

    monkeypatch.setattr(papo.models, "build_tiny_policy", build)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.images_column=null"], "none of the 6 problems has a picture that is read"),
        (["data.images_column=null"], "Set data.images_column= to the column of the pictures"),
        (["data.images_column=null"], "Without a masked view: objective=grpo"),
        (["data.question_column=answer"], "the column 'answer' holds a number, 0; a question is"),
        (["training.prompts_per_rollout=8"], "got 6 problems for training.prompts_per_rollout=8"),
        (["data.answer_column=solution"], "no column 'solution', only answer, image, problem"),
    ],
)
def test_data_that_cannot_be_trained_on_are_refused_before_a_model_is_built(
    overrides, said, tmp_path, no_tiny_model
):
    outcome = run_command(*TINY, write(tmp_path), *overrides, f"run_dir={tmp_path / 'run'}")
    assert outcome.code == 1
    assert said in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_the_labs_reward_is_refused_for_other_data_before_a_model_is_built(tmp_path, no_tiny_model):
    outcome = run_command(
        *(word for word in TINY if word != "reward=math"),
        write(tmp_path),
        f"run_dir={tmp_path}/run",
    )
    assert outcome.code == 1
    assert "the lab's reward grades drawn scenes" in outcome.stderr
    assert "reward=math" in outcome.stderr
    partly = run_command(
        *TINY[:1],
        *TINY[2:],
        "reward=lab_partly_labelled",
        write(tmp_path),
        f"run_dir={tmp_path}/run",
    )
    assert "the lab's reward grades drawn scenes" in partly.stderr


def test_a_second_run_on_the_same_data_opens_no_picture_to_choose_its_problems(
    tmp_path, monkeypatch
):
    import papo.data.table as table

    opened, original = [], table.decode_image

    def counted(stored, folder):
        opened.append(stored)
        return original(stored, folder)

    monkeypatch.setattr(table, "decode_image", counted)
    where, summary = write(tmp_path), "kept 6 of 6 problems, 6 with pictures"
    counts = []
    for number in (1, 2):
        outcome = run_command(*TINY, where, f"run_dir={tmp_path / str(number)}")
        assert outcome.code == 0, outcome.stderr
        assert summary in outcome.stdout
        counts.append(len(opened))
        opened.clear()
    assert counts[0] - counts[1] == 6
    kept = [(tmp_path / name / "problems.jsonl").read_bytes() for name in ("1", "2")]
    assert kept[0] == kept[1]
    # Another picture under the same name is another problem, also for a run that goes on.
    Image.new("RGB", (90, 40)).save(tmp_path / "3.png")
    longer = ("resume=true", "training.num_rollouts=3", f"run_dir={tmp_path / '2'}")
    refused = run_command(*longer, short=False)
    assert "it differs in its pictures" in refused.stderr


def test_own_data_are_trained_on_with_the_published_settings(tmp_path):
    outcome = run_command(
        *("+experiment=own_data", "model=tiny_qwen2_5_vl", "trainer=cpu", write(tmp_path)),
        *("rollout.max_response_tokens=4", f"run_dir={tmp_path / 'run'}"),
    )
    assert outcome.code == 0, outcome.stderr
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["optimizer"]["lr"] == 1e-6
    assert (config["objective"]["gamma"], config["rollout"]["temperature"]) == (0.02, 1.0)
    assert config["reward"]["_target_"] == "papo.rewards.MathReward"


def test_a_mixture_is_trained_on(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    write(tmp_path / "a", num=2)
    write(tmp_path / "b", num=6)
    outcome = run_command(
        *(
            *TINY[:2],
            "data=mixture",
            "rollout.max_response_tokens=4",
            f"run_dir={tmp_path / 'run'}",
        ),
        *("+data@data.sets.a=local", "+data@data.sets.b=local", "data.weights={a: 2}"),
        *(f"data.sets.a.path={tmp_path / 'a'}", f"data.sets.b.path={tmp_path / 'b'}"),
    )
    assert outcome.code == 0, outcome.stderr
    assert "kept 8 of 8 problems, 8 with pictures" in outcome.stdout
    assert "a: " in outcome.stdout


def test_texts_alone_are_trained_on_without_a_masked_view(tmp_path):
    outcome = run_command(
        *(*TINY, write(tmp_path), "data.images_column=null", "objective=grpo"),
        f"run_dir={tmp_path / 'run'}",
    )
    assert outcome.code == 0, outcome.stderr
    assert "kept 6 of 6 problems, 0 with pictures" in outcome.stdout


def test_where_the_only_picture_is_left_out_there_is_nothing_to_mask_either(tmp_path):
    where = write(tmp_path)
    rows = [{"problem": "1+1?", "answer": "2", "image": None}] * 5
    rows.append({"problem": "How many?", "answer": "2", "image": "gone.png"})
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    outcome = run_command(*TINY, where, f"run_dir={tmp_path / 'run'}")
    assert outcome.code == 1
    assert "kept 5 of 6 problems, 0 with pictures" in outcome.stdout
    assert "none of the 6 problems has a picture that is read" in outcome.stderr


# Settings of the lab


OWN = ("data=local", "reward=math", "trainer=cpu")
MODELS = {
    "of the hub": ("model=qwen2_5_vl_3b",),
    "in a folder": ("model=qwen2_5_vl_3b", "model.path=FOLDER"),
    "in a folder, of whatever kind": ("model.path=FOLDER",),
}


@pytest.mark.parametrize("model", MODELS)
def test_another_model_is_not_trained_with_what_was_left_of_the_labs_settings(model, tmp_path):
    words = (*MODELS[model], *OWN, write(tmp_path), f"run_dir={tmp_path / 'run'}")
    outcome = run_command(*words, short=False)
    assert outcome.code == 1
    [line] = outcome.stderr.splitlines()
    assert (
        "objective.gamma=0.3, training.num_rollouts=60, rollout.max_response_tokens=24, "
        "optimizer.lr=0.0003 are settings for PerceptionLab's model"
    ) in line
    assert f"python train.py +experiment=own_data {' '.join(words)} " in line
    assert "objective=papo_jsd training=lab rollout=lab optimizer=lab_adamw" in line
    assert not (tmp_path / "run").joinpath("run.json").exists()


def test_only_what_was_left_is_named(tmp_path):
    outcome = run_command(
        *(
            *MODELS["of the hub"],
            *OWN,
            write(tmp_path),
            "objective=papo_g",
            "rollout=shared_prefill",
        ),
        *("training=lab", f"run_dir={tmp_path / 'run'}"),
        short=False,
    )
    assert outcome.code == 1
    assert outcome.stderr.startswith("error: optimizer.lr=0.0003 are settings")
    assert outcome.stderr.rstrip().endswith("Were the lab's meant? optimizer=lab_adamw")


@pytest.mark.parametrize(
    "words",
    [
        ("+experiment=papo_geo3k", "model.path=FOLDER", *OWN),
        ("+experiment=papo_geo3k", *OWN),
        (
            *("model.path=FOLDER", *OWN, "objective=papo_jsd", "training=lab", "rollout=lab"),
            "optimizer=lab_adamw",
        ),
        (
            "model=qwen2_5_vl_3b",
            "model.path=FOLDER",
        ),  # made for the lab's scenes, or refused as not
    ],
)
def test_settings_that_were_chosen_are_taken(words, tmp_path, monkeypatch):
    from papo.commands.training import job

    def stop(_):
        raise ValueError("settings were taken")

    monkeypatch.setattr(job, "make_plan", stop)
    outcome = run_command(*words, f"run_dir={tmp_path / 'run'}", short=False)
    assert outcome.stderr == "error: settings were taken\n"
