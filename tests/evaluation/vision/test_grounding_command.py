"""python evaluate.py audit=grounding: one row and one page, and what it says of input it cannot use."""

import csv
import json
import runpy
import sys

import pytest
from evaluation.evaluation_command import (
    REPOSITORY,
    contents,
    read_json,
    records,
    run_evaluation,
)
from PIL import Image

from papo.evaluation.compare.grounding_truth import AuditedPolicy, areas, read_audited, track
from papo.evaluation.grounding_measures import COLUMNS, MEASURES
from papo.evaluation.vision.scored_views import ViewDrops

AUDIT = (
    *("audit=grounding", "audit.num_controls=2", "audit.num_responses=1"),
    # The starting policy never answers at once: such a reference is less likely than any floor.
    "audit.noise_floor=null",
)
PRODUCTS = ("grounding.jsonl", "grounding.json", "grounding.csv", "grounding.html")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit") / "evaluation"
    outcome = run_evaluation(*AUDIT, f"run_dir={folder}")
    assert outcome.code == 0, outcome.stderr
    return folder, outcome


@pytest.fixture
def no_model(monkeypatch):
    """Fails where a model would be loaded."""
    from papo.commands import policy_source

    def load(_):
        raise AssertionError("a model was loaded before everything was checked")

    monkeypatch.setattr(policy_source, "load_policy", load)


def rows(folder):
    with (folder / "grounding.csv").open() as file:
        return list(csv.DictReader(file))


def local(folder, problems, *overrides):
    """Evaluates a tiny model on problems of one's own."""
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, problems)))
    return run_evaluation(
        "model=tiny_qwen2_5_vl",
        "benchmark=local",
        f"data.path={folder}",
        *AUDIT,
        *overrides,
        f"run_dir={folder / 'run'}",
    )


def test_an_audit_is_a_row_per_benchmark_and_a_page(finished):
    folder, outcome = finished
    assert {one.view for one in records(folder)} == {"image", "blank", "removed", "swapped"}
    found = rows(folder)
    assert [row["benchmark"] for row in found] == ["lab_prior", "lab_counter_prior"]
    assert all(tuple(row) == COLUMNS for row in found)
    report = read_json(folder, "vision_dependency.json")
    for row, one in zip(found, report["sets"], strict=False):
        assert float(row["accuracy"]) == one["image_accuracy"]["value"]
        assert float(row["accuracy_blank"]) == one["blind_correct"]["blank"]["value"]
        assert (row["num_boxed"], row["num_controls"]) == ("3", "2")
        assert float(row["perception_kl"]) > 0
        margin = float(row["evidence_drop"]) - float(row["control_drop"])
        assert float(row["evidence_margin"]) == pytest.approx(margin)
        assert row["margin_blank"]
        assert row["reference_margin"]
    assert all(one.name in (folder / "grounding.html").read_text() for one in MEASURES)
    assert "grounding.html" in outcome.stdout
    lines = (folder / "grounding.jsonl").read_text().splitlines()
    scored = [ViewDrops.from_line(line) for line in lines]
    assert [one.kind for one in scored] == ["own", "reference"] * 6
    # The lab's words stand apart: a box it does not know would be scored as nothing.
    assert all("<unk>" not in "".join(one.tokens) for one in scored)


def test_an_audit_that_was_cut_off_goes_on_and_ends_the_same(finished, tmp_path):
    folder, _ = finished
    copied = tmp_path / "copied"
    for name, content in contents(folder).items():
        (copied / name).parent.mkdir(parents=True, exist_ok=True)
        (copied / name).write_bytes(content)
    lines = (folder / "grounding.jsonl").read_text().splitlines(keepends=True)
    (copied / "grounding.jsonl").write_text("".join(lines[:3]) + lines[3][:50])
    (copied / "result.json").unlink()
    outcome = run_evaluation(*AUDIT, f"run_dir={copied}", "resume=true")
    assert outcome.code == 0, outcome.stderr
    for name in PRODUCTS:
        assert (copied / name).read_bytes() == (folder / name).read_bytes(), name


def test_texts_alone_are_refused_before_a_model_is_loaded(tmp_path, no_model):
    problems = [{"problem": f"{n} + 1?", "answer": str(n + 1), "images": []} for n in range(2)]
    outcome = local(tmp_path, problems)
    assert outcome.code == 1
    assert "none of the 2 problems has a picture that is read" in outcome.stderr
    assert "Without a masked view: audit=none" in outcome.stderr


def test_without_boxes_the_evidence_is_empty_and_said_and_one_problem_has_no_interval(tmp_path):
    for n in range(2):
        Image.effect_noise((60, 40), 90).convert("RGB").save(tmp_path / f"{n}.png")
    one = {
        "problem": "<image><image> Which one, (A) or (B)?",
        "answer": "(B)",
        "images": ["0.png", "1.png"],
    }
    outcome = local(tmp_path, [one])
    assert outcome.code == 0, outcome.stderr
    (row,) = rows(tmp_path / "run")
    assert row["margin_blank"]
    assert row["perception_kl"]
    for name in ("num_boxed", "evidence_drop", "evidence_margin", "controls_needed"):
        assert row[name] == "", name
    assert not any(row[f"{one.name}{end}"] for one in MEASURES for end in ("_low", "_high"))
    (one,) = read_json(tmp_path / "run", "grounding.json")
    notes = " | ".join(one["notes"])
    assert "columns of the evidence are empty, not 0" in notes
    assert "1 of 1 problems have no response in the view swapped" in notes
    assert "one problem: no interval" in notes
    assert "no interval" in (tmp_path / "run" / "grounding.html").read_text()


@pytest.mark.parametrize("key", ["checkpoint", "model.path"])
def test_a_model_that_reads_text_alone_is_named_whatever_its_folder_lacks(tmp_path, no_model, key):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
    overrides = ("model=qwen2_5_vl_3b", f"{key}={tmp_path}", f"run_dir={tmp_path / 'run'}")
    if key == "model.path":
        overrides = ("checkpoint=null", *overrides)
    outcome = run_evaluation("audit=grounding", *overrides)
    assert outcome.code == 1
    assert "needs a vision-language model" in outcome.stderr
    assert f"got {tmp_path}, a model of family 'qwen3' that reads text alone" in outcome.stderr
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_table_names_its_boxes_and_one_without_room_for_a_control_is_counted(tmp_path):
    boxes = {"known": [[2, 2, 20, 20]], "full": [[0, 0, 60, 39]], "unknown": None}
    problems = []
    for name, stored in boxes.items():
        Image.effect_noise((60, 40), 90).convert("RGB").save(tmp_path / f"{name}.png")
        problems.append(
            {
                "problem": "How many?",
                "answer": "3",
                "image": f"{name}.png",
                "id": name,
                "boxes": stored,
            }
        )
    outcome = local(tmp_path, problems)
    assert outcome.code == 0, outcome.stderr
    (row,) = rows(tmp_path / "run")
    assert (row["num_scored"], row["num_boxed"], row["num_no_control"]) == ("3", "1", "1")
    assert row["evidence_margin"]
    (one,) = read_json(tmp_path / "run", "grounding.json")
    notes = " | ".join(one["notes"])
    assert (
        "no control: of 2 scored problems that say where their evidence is, 1 have no room" in notes
    )
    assert "2 of 3 scored problems say where their evidence is" in notes


@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        (("audit=unknown",), ("audit", "unknown", "grounding")),
        (("audit=grounding", "audit.num_controls=0"), ("audit.num_controls", "got 0")),
        (("audit=grounding", "~views.image", "+views.b=${audit.views.blank}"), ("views=image",)),
        (("audit=grounding", "audit/references=file"), ("audit.references.path",)),
    ],
)
def test_a_wrong_setting_is_named_before_a_model_is_loaded(tmp_path, no_model, overrides, messages):
    outcome = run_evaluation(*overrides, f"run_dir={tmp_path / 'run'}")
    assert outcome.code != 0
    for message in messages:
        assert message in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert not (tmp_path / "run" / "run.json").exists()


# --- several audits


def script(name, monkeypatch, *arguments):
    path = REPOSITORY / "scripts" / f"{name}.py"
    monkeypatch.setattr(sys, "argv", [path.name, *map(str, arguments)])
    return runpy.run_path(str(path))["main"]()


def copied(folder, target):
    for name in (*PRODUCTS, "run.json", "config.json", "responses.jsonl"):
        target.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes((folder / name).read_bytes())
    return target


def test_audits_stand_side_by_side_where_they_were_measured_alike(
    finished, tmp_path, monkeypatch, capsys
):
    folder, _ = finished
    other = copied(folder, tmp_path / "other")
    assert script("compare_audits", monkeypatch, f"a={folder}", f"b={other}") == 0
    text = capsys.readouterr().out
    assert "| number | a | b |" in text
    accuracy = next(line for line in text.splitlines() if "(`accuracy`)" in line)
    assert len(set(accuracy.split("|")[2:4])) == 1
    config = read_json(other, "config.json")
    config["audit"]["num_controls"] = 7
    (other / "config.json").write_text(json.dumps(config))
    assert script("compare_audits", monkeypatch, f"a={folder}", f"b={other}") == 1
    assert "a, b: audit.num_controls is 2 and 7" in capsys.readouterr().err
    assert script("compare_audits", monkeypatch, f"a={folder}", f"b={tmp_path}") == 1
    assert "holds no finished audit" in capsys.readouterr().err


def test_the_truth_of_an_audit_is_the_end_of_its_training_run(
    finished, tmp_path, monkeypatch, capsys
):
    folder, _ = finished
    audit, run = copied(folder, tmp_path / "audit"), tmp_path / "run"
    assert script("report_grounding", monkeypatch, audit) == 1
    assert "the truth of" in capsys.readouterr().err
    facts = read_json(audit, "run.json")
    facts["checkpoint"]["location"] = str(run / "checkpoints" / "rollout_000060.ckpt")
    (audit / "run.json").write_text(json.dumps(facts))

    def found(accuracy, perception, lucky, format):
        shares = {"perception": perception, "correct_but_misread": lucky, "format": format}
        return {
            "accuracy": {"value": accuracy},
            "shares": {name: {"value": value} for name, value in shares.items()},
        }

    run.mkdir()
    ended = {"after": {"prior": found(0.8, 0.1, 0.0, 0.0), "counter": found(0.5, 0.3, 0.1, 0.2)}}
    (run / "result.json").write_text(json.dumps({"evaluation": ended}))
    one = read_audited(audit)
    assert one.misread == pytest.approx((0.1 + 0.4 / 0.8) / 2)
    assert one.prior_drop == pytest.approx(0.3)
    assert one.format == 0.2
    row, other = rows(audit)
    assert one.measures["accuracy"] == pytest.approx(
        (float(row["accuracy"]) + float(other["accuracy"])) / 2
    )
    assert script("report_grounding", monkeypatch, audit) == 0
    assert "1 policies; 0 left out" in capsys.readouterr().out


def test_a_number_that_follows_the_truth_is_told_from_one_that_does_not():
    policies = [
        AuditedPolicy(
            checkpoint=str(n),
            misread=n / 20,
            prior_drop=0.1,
            format=0.0,
            measures={"accuracy": 1 - n / 20, "perception_kl": float((7 * n) % 11)},
            areas={"perception KL": 0.5 + n / 100},
        )
        for n in range(11)
    ]
    found = {one.name: one for one in track(policies, seed=0)}
    assert found["accuracy"].with_misread.value == pytest.approx(-1.0)
    assert found["perception_kl"].with_misread.low < 0 < found["perception_kl"].with_misread.high
    assert found["accuracy"].with_prior_drop is None
    assert found["vdf"].num_policies == 0
    number, mean, interval = areas(policies)["perception KL"]
    assert (number, mean) == (11, pytest.approx(0.55))
    assert interval.low < 0.55 < interval.high
