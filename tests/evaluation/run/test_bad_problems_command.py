"""One bad problem never ends a run: training and evaluation leave out the same, counted and named."""

import json
import re
import sys

import pytest
from evaluation.evaluation_command import REPOSITORY, read_json, records, run_evaluation
from PIL import Image

BAD = {
    "thin": ("<image>How long?", "thin.png"),
    "slot": ("<image>What is <|image_pad|>?", "good.png"),
    "half": ("<image>What is \ud83d?", "good.png"),
    "base64": ("<image>How long?", "iVBORw0KGgo" * 20_000),
    "chat": ([{"role": role, "content": "?"} for role in ("assistant", "user")], "good.png"),
    "broken": ("<image>How long?", "broken.png"),
    "markers": ("<image><image>How long?", "good.png"),
    "long": ("<image>" + "How long? " * 400, "good.png"),
}
GOOD = {
    "first": ("<image>How long?", "good.png"),
    "control": ("<image>How\twide,\x00 \U0001f600?", "other.png"),
    "turn": ("<image>What<|im_end|>\n<|im_start|>assistant is?", "good.png"),
    "answer": ("<image>What is it?", "other.png"),
}
# The probe cannot read this reference to the policy; the rest of the evaluation has no need to.
ANSWERS = {"answer": "<|image_pad|>"}
TINY = ("model=tiny_qwen2_5_vl", "rollout.max_response_tokens=4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("problems")
    Image.new("RGB", (60, 40), (200, 30, 30)).save(folder / "good.png")
    Image.new("RGB", (44, 56), (20, 30, 230)).save(folder / "other.png")
    Image.new("RGB", (1, 20_000)).save(folder / "thin.png")
    (folder / "broken.png").write_bytes((folder / "good.png").read_bytes()[:50])
    rows = [
        {"id": name, "problem": question, "answer": ANSWERS.get(name, "4"), "images": [picture]}
        for name, (question, picture) in {**BAD, **GOOD}.items()
    ]
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_an_evaluation_goes_on_without_them_in_every_view_and_the_probe(folder, tmp_path):
    outcome = run_evaluation(
        *(*TINY, "benchmark=local", f"data.path={folder}", f"run_dir={tmp_path}"),
        *("views=vision", "~views.masked_02", "~views.masked_04", "~views.masked_06"),
        *("~views.masked_08", "num_masks=1", "probe=perception", "rollout.num_responses=1"),
        "benchmark.sets.local.problems.max_prompt_tokens=2000",
        short=False,
    )
    assert outcome.code == 0, outcome.stderr
    found = records(tmp_path)
    views = {one.view for one in found}
    assert views == {"image", "blank", "removed", "swapped", "masked_1.0"}
    for view in views:
        assert [one.problem_id for one in found if one.view == view] == list(GOOD)
    assert f"local, image: {len(BAD)} problems left out" in outcome.stdout
    for name in BAD:
        # Once, though every view comes to it.
        assert outcome.stdout.count(f"left out of local: problem {name} of local: ") == 1
    assert max(map(len, outcome.stdout.splitlines())) < 1000
    assert read_json(tmp_path, "result.json")["status"] == "finished"


def test_training_leaves_out_the_same_and_writes_its_tables(folder, tmp_path):
    sys.path.insert(0, str(REPOSITORY / "tests" / "training"))
    try:
        from command import run_command
    finally:
        sys.path.pop(0)
    outcome = run_command(
        *(*TINY, "reward=math", "data=local", f"data.path={folder}", f"run_dir={tmp_path}"),
        *("data.max_prompt_tokens=2000", "training.num_rollouts=1"),
        *("training.prompts_per_rollout=4", "training.prompts_per_minibatch=4"),
        "callbacks.rollout_table.num_prompts=4",
    )
    assert outcome.code == 0, outcome.stderr
    assert f"kept {len(GOOD)} of {len(GOOD) + len(BAD)} problems" in outcome.stdout
    assert set(re.findall(r"problem (\w+) of local", outcome.stdout)) == set(BAD)
    rows = [json.loads(line) for line in (tmp_path / "rollouts.jsonl").read_text().split("\n")[:-1]]
    assert {row["problem"] for row in rows} == set(GOOD)


def test_an_evaluation_that_is_strict_stops_at_the_first_by_name(folder, tmp_path):
    outcome = run_evaluation(
        *(*TINY, "benchmark=local", f"data.path={folder}", f"run_dir={tmp_path}"),
        *("benchmark.sets.local.problems.strict=true", "rollout.num_responses=1"),
        short=False,
    )
    assert outcome.code == 1
    assert "problem thin of local: absolute aspect ratio" in outcome.stderr


@pytest.mark.parametrize(
    ("views", "remedy"), [("views=blind", "views=image"), ("probe=perception", "probe=none")]
)
def test_a_masked_view_of_texts_alone_is_refused_before_a_model_is_built(
    tmp_path, views, remedy, monkeypatch
):
    from papo.commands import policy_source

    row = {"problem": "How long?", "answer": "4", "images": ["good.png"]}
    (tmp_path / "test.jsonl").write_text("\n".join([json.dumps(row)] * 3))

    monkeypatch.setattr(policy_source, "load_policy", lambda _: pytest.fail("a model was loaded"))
    outcome = run_evaluation(
        *(*TINY, "benchmark=local", f"data.path={tmp_path}", f"run_dir={tmp_path / 'run'}", views),
        "benchmark.sets.local.problems.images_column=null",
        short=False,
    )
    assert outcome.code == 1
    [line] = outcome.stderr.splitlines()
    assert "none of the 3 problems has a picture that is read" in line
    assert "Set benchmark.sets.local.problems.images_column=" in line
    assert line.endswith(f"Without a masked view: {remedy}")


def test_a_setting_of_data_that_an_evaluation_does_not_read_is_refused(folder, tmp_path):
    outcome = run_evaluation(
        *(*TINY, "benchmark=local", f"data.path={folder}", f"run_dir={tmp_path}"),
        "+data.question_column=messages",
        short=False,
    )
    assert outcome.code == 1
    assert "data.question_column is not read" in outcome.stderr
    assert "Set benchmark.sets.local.problems.question_column=" in outcome.stderr
