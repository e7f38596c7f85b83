"""python evaluate.py views=vision probe=perception, and the comparison of what it wrote."""

import json

import pytest
from evaluation.evaluation_command import contents, read_json, records, run_evaluation
from PIL import Image

from papo.evaluation.compare.comparison import compare_evaluations, read_evaluation
from papo.evaluation.probe.token_divergence import TokenDivergence
from papo.evaluation.vision.dependency import KNOWN_VIEWS

VISION = ("views=vision", "probe=perception", "probe/references=flawless")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vision") / "evaluation"
    outcome = run_evaluation(*VISION, f"run_dir={folder}")
    assert outcome.code == 0, outcome.stderr
    return folder, outcome


def divergences(folder):
    lines = (folder / "perception_kl.jsonl").read_text().splitlines()
    return [TokenDivergence.from_line(line) for line in lines]


def test_every_view_is_run_and_reported(finished):
    folder, outcome = finished
    assert {one.view for one in records(folder)} == set(KNOWN_VIEWS)
    report = read_json(folder, "vision_dependency.json")
    assert report["not_run"] == []
    assert [one["num_problems"] for one in report["sets"]] == [3, 3, 6]
    for one in report["sets"]:
        assert {view["view"] for view in one["views"]} == set(KNOWN_VIEWS) - {"image"}
        assert one["curve"]["area"] is not None
    assert (folder / "vision_dependency.svg").exists()
    assert "vision_dependency.md" in outcome.stdout


def test_own_and_flawless_responses_are_probed_and_their_tokens_restored(finished):
    folder, _ = finished
    found = divergences(folder)
    assert [one.kind for one in found] == ["own", "reference"] * 6
    assert all(one.same_length for one in found if one.kind == "own")
    written = {
        (one.benchmark, one.problem_id): one.response
        for one in records(folder)
        if one.view == "image" and one.response_index == 0
    }
    for one in found:
        if one.kind == "own":
            words = written[one.benchmark, one.problem_id].split()
            assert list(one.tokens[: len(words)]) == words
    summaries = read_json(folder, "perception_kl_summary.json")
    assert [one["num_responses"] for one in summaries] == [3, 3, 3, 3, 6, 6]
    assert all(one["kl_exact"]["value"] > 0 for one in summaries)


def test_a_probe_that_was_cut_off_goes_on_and_ends_the_same(finished, tmp_path):
    folder, _ = finished
    copied = tmp_path / "copied"
    copied.mkdir()
    for name, content in contents(folder).items():
        (copied / name).parent.mkdir(parents=True, exist_ok=True)
        (copied / name).write_bytes(content)
    lines = (folder / "perception_kl.jsonl").read_text().splitlines(keepends=True)
    (copied / "perception_kl.jsonl").write_text("".join(lines[:4]) + lines[4][:50])
    (copied / "result.json").unlink()
    outcome = run_evaluation(*VISION, f"run_dir={copied}", "resume=true")
    assert outcome.code == 0, outcome.stderr
    for name in ("perception_kl.jsonl", "perception_kl_summary.json", "vision_dependency.json"):
        assert (copied / name).read_bytes() == (folder / name).read_bytes()


def test_a_fixed_reference_is_what_another_evaluation_wrote(finished, tmp_path):
    folder, _ = finished
    outcome = run_evaluation(
        "probe=perception",
        "probe/references=file",
        f"probe.references.path={folder / 'responses.jsonl'}",
        "probe.num_problems=2",
        "num_masks=2",
        f"run_dir={tmp_path}",
    )
    assert outcome.code == 0, outcome.stderr
    found = divergences(tmp_path)
    assert [one.kind for one in found] == ["own", "reference"] * 4
    # The same policy wrote both with the same seed.
    assert all(a.kl_exact == b.kl_exact for a, b in zip(found[::2], found[1::2], strict=True))
    assert not (tmp_path / "vision_dependency.json").exists()


def test_an_evaluation_is_compared_with_itself_in_any_view(finished):
    folder, _ = finished
    for view in KNOWN_VIEWS:
        run = read_evaluation(folder, view=view)
        found = compare_evaluations(run, run, common_only=False, any_settings=False, seed=0)
        assert found.pooled.num_problems == 6
        assert found.pooled.difference.p_value == 1.0
        assert found.num_responses == 2


@pytest.fixture
def no_model(monkeypatch):
    """Fails where a model would be loaded."""
    from papo.commands import policy_source

    def load(_):
        raise AssertionError("a model was loaded before everything was checked")

    monkeypatch.setattr(policy_source, "load_policy", load)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("probe=perception", "num_masks=0"), "at least one mask"),
        (("views=vision", "num_masks=0"), "at least one mask"),
        (("views=vision", "masking=blank"), "takes a random mask; got masking=blank"),
        (("views=vision", "masking=semantic"), "takes a random mask; got masking=semantic"),
        (("probe=perception", "probe/references=file"), "references.path"),
        (("probe=perception", "probe.num_responses=0", "probe.references=null"), "no references"),
    ],
)
def test_a_wrong_setting_is_named_before_a_model_is_loaded(tmp_path, no_model, overrides, message):
    outcome = run_evaluation(*overrides, f"run_dir={tmp_path / 'run'}")
    assert outcome.code == 1
    assert message in outcome.stderr
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(
    "overrides",
    [
        ("probe=perception", "masking=evidence"),
        ("probe=perception", "masking=control"),
        ("views=blind", "views.blank.mask._target_=papo.masking.EvidenceMask"),
    ],
)
def test_evidence_that_the_data_do_not_tell_of_is_refused_before_a_model_is_loaded(
    tmp_path, no_model, overrides
):
    Image.new("RGB", (60, 40)).save(tmp_path / "1.png")
    rows = [
        {"problem": "1 + 1?", "answer": "2", "images": []},
        {"problem": "<image>How many?", "answer": "2", "images": ["lost.png"]},
        {"id": "third", "problem": "<image>How many?", "answer": "2", "images": ["1.png"]},
    ]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    outcome = run_evaluation(
        "model=tiny_qwen2_5_vl",
        "benchmark=local",
        f"data.path={tmp_path}",
        *overrides,
        f"run_dir={tmp_path / 'run'}",
    )
    assert outcome.code == 1
    assert "'third' of 'local' has 1 pictures and 0 boxes" in outcome.stderr
    assert "Choose masking=random" in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
    assert not (tmp_path / "run" / "run.json").exists()
