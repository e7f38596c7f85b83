"""python evaluate.py from the command line to the tables; mistakes cost seconds and lose nothing."""

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from importlib.metadata import version

import pytest
import torch
from evaluation.evaluation_command import REPOSITORY, contents, read_json, records, run_evaluation
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

from papo.lab import WARM_START
from papo.storage.files import locked

pytestmark = pytest.mark.slow

LAB_SETS = {"lab_prior", "lab_counter_prior"}


@pytest.fixture
def no_model(monkeypatch):
    """Fails where a model would be loaded."""
    from papo.commands import policy_source

    def load(_):
        raise AssertionError("a model was loaded before everything was checked")

    monkeypatch.setattr(policy_source, "load_policy", load)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "evaluation"
    outcome = run_evaluation(f"run_dir={folder}")
    assert outcome.code == 0, outcome.stderr
    return folder, outcome


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training run of two rollouts, and its policy as a Hugging Face folder."""
    sys.path.insert(0, str(REPOSITORY / "tests" / "training"))
    try:
        from command import run_command
    finally:
        sys.path.pop(0)
    folder = tmp_path_factory.mktemp("trained")
    outcome = run_command(f"run_dir={folder / 'run'}", "optimizer.lr=0.01")
    assert outcome.code == 0, outcome.stderr
    from papo.commands.export import export

    export(folder / "run", folder / "exported")
    return folder / "run", folder / "exported"


def test_an_evaluation_leaves_what_it_promises(finished):
    folder, outcome = finished
    found = records(folder)
    assert {one.benchmark for one in found} == LAB_SETS
    assert len(found) == 2 * 3 * 2
    assert all(one.view == "image" and set(one.verdicts) == {"lab"} for one in found)
    problems = [json.loads(line) for line in (folder / "problems.jsonl").read_text().splitlines()]
    assert [one["benchmark"] for one in problems] == ["lab_prior"] * 3 + ["lab_counter_prior"] * 3
    assert {one["problem_id"] for one in problems} == {one.problem_id for one in found}
    for one in problems:
        with Image.open(folder / one["images"][0]) as picture:
            assert picture.size == (56, 56)
        assert {"a", "b", "operation", "result"} <= one["truth"].keys()
    run = read_json(folder, "run.json")
    assert run["seed"] == 0
    assert run["checkpoint"]["location"] == str(WARM_START)
    assert len(run["checkpoint"]["weights"]) == 64
    assert read_json(folder, "result.json")["status"] == "finished"
    rows = list(csv.DictReader((folder / "table.csv").read_text().splitlines()))
    assert [row["benchmark"] for row in rows] == ["lab_prior", "lab_counter_prior"]
    for row in rows:
        right = [one.correct for one in found if one.benchmark == row["benchmark"]]
        assert float(row["accuracy"]) == pytest.approx(sum(right) / len(right))
    assert "PerceptionLab, training prior" in outcome.stdout
    assert "avg@2" in outcome.stdout
    assert "lab says" in outcome.stdout
    assert str(folder) in outcome.stdout


def test_a_finished_evaluation_is_shown_and_left_alone(finished, no_model):
    folder, first = finished
    before = contents(folder)
    outcome = run_evaluation(f"run_dir={folder}", "resume=true")
    assert outcome.code == 0
    assert outcome.stdout.splitlines()[-8:] == first.stdout.splitlines()[-8:]
    assert contents(folder) == before


DELETED = {
    "the responses": ("responses.jsonl", "batches.csv"),
    "the pictures": ("images", "problems.jsonl"),
    "all but what it is and what came of it": (
        *("responses.jsonl", "problems.jsonl", "batches.csv", "images", "table.csv", "report.md"),
        *("config.yaml", ".lock"),
    ),
}


@pytest.mark.parametrize("deleted", DELETED)
def test_repeating_a_finished_evaluation_changes_no_byte_whatever_was_deleted(
    finished, tmp_path, no_model, deleted
):
    folder, first = finished
    spoilt = shutil.copytree(folder, tmp_path / "evaluation")
    for name in DELETED[deleted]:
        path = spoilt / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = contents(spoilt)
    outcome = run_evaluation(f"run_dir={spoilt}", "resume=true")
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout.splitlines()[-8:-1] == first.stdout.splitlines()[-8:-1]
    assert contents(spoilt) == before


# More kinds of damage: tests/storage/test_files.py.
SPOILT = {"nested too deep": b"[" * 100_000, "no text": b"\xff\xfe\x00{"}


@pytest.mark.parametrize("name", ["config.json", "run.json", "result.json", "summary.json"])
@pytest.mark.parametrize("how", SPOILT)
def test_a_damaged_file_is_named_with_what_to_do(finished, tmp_path, no_model, name, how):
    folder, _ = finished
    spoilt = shutil.copytree(folder, tmp_path / "evaluation")
    (spoilt / name).write_bytes(SPOILT[how])
    before = contents(spoilt)
    outcome = run_evaluation(f"run_dir={spoilt}", "resume=true")
    assert outcome.code == 1
    [line] = outcome.stderr.splitlines()
    assert f"{spoilt / name} is damaged: " in line
    assert "restore it" in line or "Delete" in line
    assert contents(spoilt) == before


@pytest.mark.parametrize(
    ("name", "how"), [("batches.csv", "no text"), ("problems.jsonl", "nested too deep")]
)
def test_a_damaged_table_is_named(finished, tmp_path, name, how):
    folder, _ = finished
    spoilt = shutil.copytree(folder, tmp_path / "evaluation")
    (spoilt / "result.json").unlink()
    with (spoilt / name).open("ab") as file:
        file.write(SPOILT[how] + b"\n")
    outcome = run_evaluation(f"run_dir={spoilt}", "resume=true")
    assert outcome.code == 1
    [line] = outcome.stderr.splitlines()
    assert f"{spoilt / name} is damaged" in line


def test_every_start_of_an_evaluation_is_kept(finished, tmp_path):
    folder, _ = finished
    again = shutil.copytree(folder, tmp_path / "evaluation")
    (again / "result.json").unlink()
    run = read_json(again, "run.json")
    [start] = run.pop("starts")
    run["versions"]["torch"] = "1.0"
    (again / "run.json").write_text(json.dumps(run))
    outcome = run_evaluation(f"run_dir={again}", "resume=true")
    assert outcome.code == 0, outcome.stderr
    assert f"warning: torch was 1.0, is {version('torch')}. " in outcome.stdout
    starts = read_json(again, "run.json")["starts"]
    assert [one["overrides"] for one in starts] == [
        start["overrides"],
        [*start["overrides"][:-1], f"run_dir={again}", "resume=true"],
    ]


DAMAGES = {
    "cut": lambda content: content[: len(content) // 3],
    "one bit flipped": lambda content: (
        content[: len(content) // 2]
        + bytes([content[len(content) // 2] ^ 1])
        + content[len(content) // 2 + 1 :]
    ),
}


@pytest.mark.parametrize("how", ["cut", "one bit flipped"])
def test_a_damaged_checkpoint_is_not_evaluated_and_the_one_before_it_is_named(
    trained, tmp_path, no_model, how
):
    run = shutil.copytree(trained[0], tmp_path / "run")
    first, newest = (run / "checkpoints" / f"rollout_00000{step}.ckpt" for step in (1, 2))
    newest.write_bytes(DAMAGES[how](newest.read_bytes()))
    for named in (run, newest):
        outcome = run_evaluation(f"checkpoint={named}", f"run_dir={tmp_path / 'evaluation'}")
        assert outcome.code == 1
        [line] = outcome.stderr.splitlines()
        assert f"{newest} is damaged: " in line
        assert f"The newest whole one before it is {first}" in line
    from papo.commands.export import export

    with pytest.raises(ValueError, match=f"The newest whole one before it is {first}"):
        export(run, tmp_path / "exported")
    first.write_bytes(b"")
    outcome = run_evaluation(f"checkpoint={run}", f"run_dir={tmp_path / 'evaluation'}")
    assert "No whole one lies before it" in outcome.stderr


def test_a_folder_that_holds_an_evaluation_is_left_alone(finished, no_model):
    folder, _ = finished
    before = contents(folder)
    outcome = run_evaluation(f"run_dir={folder}")
    assert outcome.code == 1
    assert "already holds an evaluation" in outcome.stderr
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=5", "seed was 0, is 5"),
        ("rollout.num_responses=1", "rollout.num_responses was 2, is 1"),
        ("benchmark.limit=2", "benchmark.limit was 3, is 2"),
    ],
)
def test_continuing_with_another_setting_is_refused_by_name(finished, no_model, override, message):
    folder, _ = finished
    before = contents(folder)
    outcome = run_evaluation(f"run_dir={folder}", "resume=true", override)
    assert outcome.code == 1
    assert message in outcome.stderr
    assert contents(folder) == before


def test_a_second_process_is_refused(tmp_path, no_model):
    with locked(tmp_path / "run"):
        outcome = run_evaluation(f"run_dir={tmp_path / 'run'}")
    assert outcome.code == 1
    assert "another process writes to" in outcome.stderr


def test_a_training_run_and_its_export_answer_alike(trained, finished, tmp_path):
    run, exported = trained
    first = run / "checkpoints" / "rollout_000001.ckpt"
    outcome = run_evaluation(
        f"checkpoint={run},{exported},{first}", f"run_dir={tmp_path}", multirun=True
    )
    assert outcome.code == 0, outcome.stderr
    of_run, of_export, earlier, untrained = (
        tmp_path / "0",
        tmp_path / "1",
        tmp_path / "2",
        finished[0],
    )
    assert records(of_run) == records(of_export)
    told = [read_json(folder, "run.json")["checkpoint"] for folder in (of_run, of_export, earlier)]
    assert told[0]["weights"] == told[1]["weights"] != told[2]["weights"]
    assert [one["location"] for one in told] == [
        str(run / "checkpoints" / "rollout_000002.ckpt"),
        str(exported),
        str(first),
    ]
    # The same draws from other weights.
    folders = (of_run, earlier, untrained)
    assert len({tuple(one.seed for one in records(folder)) for folder in folders}) == 1
    assert len({tuple(one.response for one in records(folder)) for folder in folders}) == 3


def test_a_training_run_keeps_its_model_but_takes_single_keys(trained, tmp_path, no_model):
    run, _ = trained
    outcome = run_evaluation(f"checkpoint={run}", "model=tiny_qwen2_5_vl", f"run_dir={tmp_path}/a")
    assert outcome.code == 1
    assert "brings its own model; drop model=tiny_qwen2_5_vl" in outcome.stderr
    outcome = run_evaluation(
        f"checkpoint={run}", "model.path=no/such/folder", f"run_dir={tmp_path}/b"
    )
    assert outcome.code == 1
    assert "model.path must be a Hugging Face folder" in outcome.stderr


def test_other_weights_do_not_continue_an_evaluation(tmp_path):
    model = tmp_path / "model"
    shutil.copytree(WARM_START, model)
    command = (f"checkpoint={model}", f"run_dir={tmp_path / 'run'}")
    assert run_evaluation(*command).code == 0
    (tmp_path / "run" / "result.json").unlink()
    from safetensors.torch import load_file, save_file

    weights = load_file(model / "model.safetensors")
    name = next(iter(weights))
    weights[name] = weights[name] + 1.0
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    outcome = run_evaluation(*command, "resume=true")
    assert outcome.code == 1
    assert "began with other weights" in outcome.stderr


def test_greedy_takes_one_response_and_says_so(tmp_path):
    greedy = ("rollout=greedy", "rollout.max_response_tokens=24")
    run_evaluation(*greedy, "benchmark.limit=8", f"run_dir={tmp_path}/a", short=False)
    outcome = run_evaluation(
        *greedy, "benchmark.limit=3", "seed=9", f"run_dir={tmp_path}/b", short=False
    )
    assert outcome.code == 0, outcome.stderr
    assert "greedy" in outcome.stdout
    found = records(tmp_path / "b")
    assert len(found) == 6
    # Whatever the seed and the batch, the most likely response is one.
    known = {one.problem_id: one.response for one in records(tmp_path / "a")}
    assert all(known[one.problem_id] == one.response for one in found)


def test_a_response_that_is_cut_is_counted(tmp_path):
    outcome = run_evaluation("rollout.max_response_tokens=5", f"run_dir={tmp_path}")
    assert outcome.code == 0, outcome.stderr
    assert all(one.stop_reason == "length" and one.num_tokens == 5 for one in records(tmp_path))
    assert all(one["cut"] == 1.0 for one in read_json(tmp_path, "summary.json")["sets"])


def test_an_interrupted_evaluation_says_how_to_go_on_and_does(tmp_path, monkeypatch, finished):
    from papo.evaluation.run import runner

    original, calls = runner.sample_prompts, []

    def interrupted(*arguments):
        calls.append(None)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(runner, "sample_prompts", interrupted)
        outcome = run_evaluation(f"run_dir={tmp_path}")
    assert outcome.code == 143
    [line] = outcome.stderr.splitlines()
    assert f"interrupted by SIGTERM: {tmp_path} " in line
    assert read_json(tmp_path, "result.json")["status"] == "interrupted"
    assert records(tmp_path)
    command = shlex.split(line.rpartition("with: ")[2])
    assert command[:2] == ["python", "evaluate.py"]
    assert run_evaluation(*command[2:], short=False).code == 0
    assert records(tmp_path) == records(finished[0])


def test_half_precision_is_for_weights_and_not_for_positions(tmp_path, monkeypatch):
    from papo.commands import policy_source

    original, loaded = policy_source.load_policy, []

    def remembered(source):
        loaded.append(original(source))
        return loaded[-1]

    monkeypatch.setattr(policy_source, "load_policy", remembered)
    assert run_evaluation("dtype=bfloat16", f"run_dir={tmp_path}").code == 0
    [policy] = loaded
    assert {parameter.dtype for parameter in policy.parameters()} == {torch.bfloat16}
    assert {buffer.dtype for buffer in policy.buffers()} == {torch.float32}


def test_a_folder_of_something_else_is_left_alone(trained, tmp_path, no_model):
    (tmp_path / "responses.jsonl").write_text("{}\n")
    outcome = run_evaluation(f"run_dir={tmp_path}")
    assert outcome.code == 1
    assert "holds responses.jsonl but no run.json" in outcome.stderr
    run, _ = trained
    before = contents(run)
    for resume in ("true", "false"):
        outcome = run_evaluation(f"run_dir={run}", f"resume={resume}")
        assert outcome.code == 1
        assert "holds a training run" in outcome.stderr
    assert contents(run) == before


IMPOSSIBLE = {
    "evaluation.tokens_per_batch=0": "evaluation.tokens_per_batch",
    "evaluation.pass_at=[3]": "pass@3",
    "evaluation.published=[papo]": "known: grpo_3b",
    "+evaluation.pass=1": "unknown key evaluation.pass",
    "+bench=1": "unknown key bench",
    "rollout.num_responses=0": "rollout.num_responses",
    "rollout.temperature=0.0": "rollout.temperature",
    "rollout.top_k=0": "rollout.top_k",
    "seed=-1": "seed",
    "num_threads=0": "num_threads",
    "device=tpu9": "device",
    "dtype=int8": "dtype",
    "benchmark.sets=null": "benchmark.sets is empty",
    "+benchmark.sets.lab_prior.graders=1": "unknown or missing: graders",
    "benchmark.sets.lab_prior.group=best": "benchmark.sets.lab_prior.group",
    "benchmark.sets.lab_prior.grader._target_=os.system": "_target_: os.system",
    "~views.image": "at least one view",
    "+views.again={_target_: papo.views.ImageView}": "its own name; got image, image",
    "checkpoint=no/such/folder": "checkpoint=no/such/folder",
    "checkpoint=README.md": "is no checkpoint inside a run folder",
    "model.path=no/such/folder": "model.path=no/such/folder",
    "data.path=.": "data.path=. is not read",
    "masking=blank": "masking is set and not read",
    "masking.ratio=0.9": "masking.ratio is set and not read",
    "num_masks=2": "num_masks is set and not read",
    "fidelity.mask_grid=token": "fidelity.mask_grid is set and not read",
}


@pytest.mark.parametrize("override", IMPOSSIBLE)
def test_an_impossible_setting_is_named_before_a_model_is_loaded(override, tmp_path, no_model):
    outcome = run_evaluation(override, f"run_dir={tmp_path / 'run'}")
    assert outcome.code == 1
    assert IMPOSSIBLE[override] in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_setting_without_a_default_is_asked_for_by_its_key(tmp_path, no_model):
    references = ("probe=perception", "probe/references=file")
    outcome = run_evaluation(*references, f"run_dir={tmp_path / 'run'}")
    assert (
        outcome.stderr
        == "error: probe.references.path has no default; set probe.references.path=\n"
    )


@pytest.mark.parametrize(
    "missing", ["preprocessor_config.json", "tokenizer.json", "model.safetensors"]
)
@pytest.mark.parametrize("key", ["checkpoint", "model.path"])
def test_a_checkpoint_without_a_part_names_the_file(missing, key, tmp_path, no_model):
    shutil.copytree(WARM_START, tmp_path / "model")
    (tmp_path / "model" / missing).unlink()
    outcome = run_evaluation(f"{key}={tmp_path / 'model'}", f"run_dir={tmp_path / 'run'}")
    assert outcome.code == 1
    assert f"{missing} is missing" in outcome.stderr
    assert "scripts/export_policy.py" in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


def test_a_run_without_a_checkpoint_is_no_policy_yet(tmp_path, no_model):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    outcome = run_evaluation(f"checkpoint={tmp_path / 'run'}", f"run_dir={tmp_path / 'evaluation'}")
    assert outcome.code == 1
    assert "holds no checkpoint" in outcome.stderr


def test_a_missing_data_set_stops_before_the_model(tmp_path, no_model):
    outcome = run_evaluation(
        "benchmark=geo3k", f"data.path={tmp_path}", f"run_dir={tmp_path / 'run'}"
    )
    assert outcome.code == 1
    assert "hiyouga_geometry3k" in outcome.stderr
    assert "Traceback" not in outcome.stderr


@pytest.fixture
def small_disk(tmp_path):
    """A file system on which the second half of an evaluation finds no room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=72k", "tmpfs", str(disk)]
    if os.name != "posix" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_keeps_what_is_graded(small_disk, finished):
    command = f"run_dir={small_disk / 'run'}"
    outcome = run_evaluation(command)
    assert outcome.code == 1
    assert "No space left" in outcome.stderr
    assert "resume=true" in outcome.stderr
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    outcome = run_evaluation(command, "resume=true")
    assert outcome.code == 0, outcome.stderr
    assert records(small_disk / "run") == records(finished[0])


TINY = (
    "model=tiny_qwen2_5_vl",
    "rollout.num_responses=2",
    "rollout.max_response_tokens=8",
    "benchmark.limit=3",
)


def test_a_folder_of_ones_own_is_evaluated_with_a_tiny_model(tmp_path):
    (tmp_path / "pictures").mkdir()
    rows = []
    for number in range(4):
        Image.new("RGB", (60, 40), (number * 60, 0, 0)).save(
            tmp_path / "pictures" / f"{number}.png"
        )
        rows.append(
            {
                "id": f"row {number}",
                "problem": "<image>How long is $x$?",
                "answer": "4 \\sqrt { 3 }",
                "images": [f"pictures/{number}.png"],
            }
        )
    rows[1]["images"] = ["pictures/none.png"]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = (*TINY, "benchmark=local", f"data.path={tmp_path}", f"run_dir={tmp_path / 'run'}")
    outcome = run_evaluation(*command, short=False)
    assert outcome.code == 0, outcome.stderr
    found = records(tmp_path / "run")
    assert {one.problem_id for one in found} == {"row 0", "row 2"}
    assert set(found[0].verdicts) == {"mathruler", "math_verify", "combined"}
    assert "1 problems left out" in outcome.stdout
    assert "accuracy by grader" in outcome.stdout

    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, rows[:2])))
    outcome = run_evaluation(*command, "resume=true", short=False)
    assert outcome.code == 1
    assert "benchmark.local.num_problems was 3, is 2" in outcome.stderr


def test_a_data_set_without_a_readable_problem_has_no_table(tmp_path):
    row = {"problem": "<image>?", "answer": "1", "images": ["none.png"]}
    (tmp_path / "test.jsonl").write_text(json.dumps(row))
    outcome = run_evaluation(
        *TINY, "benchmark=local", f"data.path={tmp_path}", f"run_dir={tmp_path}/run", short=False
    )
    assert outcome.code == 1
    assert "none of the 1 problems could be shown" in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert read_json(tmp_path / "run", "result.json")["status"] == "failed"


@pytest.mark.parametrize(
    "overrides",
    [
        ("views=vision", "masking=random_token", "masking.grid=token", "num_masks=2"),
        ("probe=perception", "masking=random", "masking.ratio=0.8", "fidelity.mask_grid=token"),
        ("benchmark=local", "data.path=."),
        ("benchmark=local", "benchmark.path=."),
    ],
)
def test_what_is_read_may_be_set(overrides, tmp_path, no_model, monkeypatch):
    from papo.commands.evaluation import job

    def stop(_):
        raise ValueError("all is read")

    monkeypatch.setattr(job, "preflight", stop)
    outcome = run_evaluation(*overrides, f"run_dir={tmp_path}", short=False)
    assert "all is read" in outcome.stderr


def test_geometry3k_is_evaluated_with_a_tiny_model(geometry3k, tmp_path):
    outcome = run_evaluation(
        *TINY,
        "benchmark=geometry3k",
        "benchmark.sets.geometry3k.problems.split=validation",
        f"data.path={geometry3k}",
        f"run_dir={tmp_path}",
        short=False,
    )
    assert outcome.code == 0, outcome.stderr
    found = records(tmp_path)
    assert len(found) == 6
    assert all(one.reference for one in found)
    assert all((tmp_path / image).is_file() for image in _images(tmp_path))


def _images(folder):
    for line in (folder / "problems.jsonl").read_text().splitlines():
        yield from json.loads(line)["images"]


def composed(*overrides):
    with initialize_config_dir(config_dir=str(REPOSITORY / "conf"), version_base="1.3"):
        return compose("evaluate", overrides=list(overrides))


def test_the_published_protocol_is_the_default():
    config = composed("benchmark=all")
    rollout = config.rollout
    assert (rollout.num_responses, rollout.temperature, rollout.top_p) == (8, 1.0, 1.0)
    assert (rollout.top_k, rollout.max_response_tokens) == (50, 2048)
    assert len(config.benchmark.sets) == 9
    assert config.model.temperature == 1.0


@pytest.mark.parametrize("group", ["benchmark", "views", "rollout", "masking"])
def test_every_choice_composes_and_builds(group, tmp_path):
    from papo.commands.evaluation.plan import make_benchmarks, make_views

    choices = sorted(file.stem for file in (REPOSITORY / "conf" / group).glob("*.yaml"))
    assert len(choices) > 1
    for choice in choices:
        if (group, choice) == ("benchmark", "none"):
            continue  # of train.py, which need not evaluate
        config = composed(f"{group}={choice}", f"data.path={tmp_path}")
        OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        assert make_benchmarks(config.benchmark)
        assert make_views(config.views, {})
