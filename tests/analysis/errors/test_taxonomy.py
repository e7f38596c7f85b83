"""Reading evaluations, drawing the sample, and the lab's exact labels."""

import json
from pathlib import Path

import pytest
from analysis.evaluation_fixtures import lab_record, write_evaluation

from papo.analysis.errors.labellers.lab import LabLabels
from papo.analysis.errors.sampling import draw_sample, equal_quotas
from papo.analysis.errors.taxonomy import (
    DEFINITIONS,
    ERROR_CATEGORIES,
    ErrorCategory,
    ErrorLabel,
    Exclusion,
)
from papo.storage.evaluated_run import read_evaluated_runs


def read(*folders: Path, require_finished: bool = True):
    return read_evaluated_runs(list(folders), view="image", require_finished=require_finished)


def test_every_error_has_a_definition_and_an_example():
    assert set(DEFINITIONS) == set(ERROR_CATEGORIES)
    assert ErrorCategory.CORRECT not in ERROR_CATEGORIES


def test_only_the_asked_view_is_read(tmp_path):
    records = [lab_record(index, "perception") for index in range(4)]
    blank = [lab_record(index, "format", view="blank") for index in range(4)]
    write_evaluation(tmp_path / "a", records + blank)
    (run,) = read(tmp_path / "a")
    assert len(run.responses) == 4
    assert {record.view for responses in run.responses.values() for record in responses} == {
        "image"
    }


def test_runs_of_one_folder_name_are_told_apart_by_their_paths(tmp_path):
    for parent in ("before", "after"):
        write_evaluation(tmp_path / parent / "lab", [lab_record(0, "perception")])
    runs = read(tmp_path / "before" / "lab", tmp_path / "after" / "lab")
    assert [run.name for run in runs] == ["before/lab", "after/lab"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "responses.jsonl").unlink(), "holds no responses"),
        (lambda folder: (folder / "responses.jsonl").write_text(""), "no response in the view"),
        (lambda folder: (folder / "responses.jsonl").write_text("{}\n"), "line 1"),
        (lambda folder: (folder / "problems.jsonl").unlink(), "problems.jsonl"),
        (lambda folder: (folder / "problems.jsonl").write_text(""), "does not describe"),
        (lambda folder: (folder / "problems.jsonl").write_text("[1]\n"), "describes no problem"),
        (lambda folder: (folder / "result.json").unlink(), "unfinished"),
        (lambda folder: (folder / "result.json").write_text('{"status": "failed"}'), "is failed"),
        (lambda folder: (folder / "result.json").write_text("[]"), "is damaged: it holds list"),
    ],
)
def test_a_spoiled_folder_is_named_with_what_is_wrong(tmp_path, spoil, message):
    write_evaluation(tmp_path / "a", [lab_record(0, "perception")])
    spoil(tmp_path / "a")
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "a")


def test_a_folder_that_is_not_there_or_is_a_training_run_says_so(tmp_path):
    with pytest.raises(ValueError, match="there is no folder"):
        read(tmp_path / "nowhere")
    (tmp_path / "rollouts.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="is a training run"):
        read(tmp_path)


def test_a_problem_without_all_its_responses_is_refused_or_left_out(tmp_path):
    records = [lab_record(i, "perception", response_index=j) for i in range(3) for j in range(2)]
    write_evaluation(tmp_path / "a", records[:-1])
    with pytest.raises(ValueError, match="1 of 2"):
        read(tmp_path / "a")
    (run,) = read(tmp_path / "a", require_finished=False)
    assert len(run.responses) == 2


def test_a_torn_last_line_of_an_unfinished_evaluation_is_left_out(tmp_path):
    write_evaluation(tmp_path / "a", [lab_record(i, "perception") for i in range(3)])
    path = tmp_path / "a" / "responses.jsonl"
    path.write_text(path.read_text()[:-20])
    (run,) = read(tmp_path / "a", require_finished=False)
    assert len(run.responses) == 2


def test_a_repeated_response_is_refused(tmp_path):
    write_evaluation(tmp_path / "a", [lab_record(0, "perception")] * 2)
    with pytest.raises(ValueError, match="repeats response 0"):
        read(tmp_path / "a")


def test_a_picture_outside_the_folder_is_refused(tmp_path):
    write_evaluation(tmp_path / "a", [lab_record(0, "perception")])
    path = tmp_path / "a" / "problems.jsonl"
    row = json.loads(path.read_text()) | {"images": ["../../secret.png"]}
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match="outside the evaluation"):
        read(tmp_path / "a")


def test_runs_on_different_items_are_refused(tmp_path):
    write_evaluation(tmp_path / "a", [lab_record(i, "perception") for i in range(3)])
    write_evaluation(tmp_path / "b", [lab_record(i, "perception") for i in range(2)])
    write_evaluation(
        tmp_path / "c",
        [lab_record(i, "perception", response_index=j) for i in range(3) for j in (0, 1)],
    )
    write_evaluation(tmp_path / "d", [lab_record(i, "perception", reference="0") for i in range(3)])
    for other, message in (("b", "different items"), ("c", "2"), ("d", "different references")):
        with pytest.raises(ValueError, match=message):
            read(tmp_path / "a", tmp_path / other)
    with pytest.raises(ValueError, match="once"):
        read(tmp_path / "a", tmp_path / "a")
    with pytest.raises(ValueError, match="at least one evaluation"):
        read()


def two_benchmarks(folder: Path, name: str, *, right: set[int]) -> Path:
    write_evaluation(
        folder / name,
        [
            lab_record(
                index,
                "correct" if index in right else "perception",
                benchmark=benchmark,
                response_index=j,
            )
            for benchmark, size in (("small", 10), ("large", 60))
            for index in range(size)
            for j in range(3)
        ],
    )
    return folder / name


def test_every_benchmark_gives_as_many_wrong_answers_as_the_others(tmp_path):
    (run,) = read(two_benchmarks(tmp_path, "a", right={0, 1, 2, 3, 4}))
    sample = draw_sample([run], num_cases=20, seed=1)
    counts = {
        name: sum(case.benchmark == name for case in sample.cases) for name in ("small", "large")
    }
    assert counts == {"small": 5, "large": 15}  # the small one has no more than 5
    assert len({(case.benchmark, case.problem_id) for case in sample.cases}) == 20


def test_equal_quotas_never_exceed_what_there_is():
    assert equal_quotas({"a": 3, "b": 100, "c": 100}, 23) == {"a": 3, "b": 10, "c": 10}
    assert equal_quotas({"a": 3, "b": 1}, 100) == {"a": 3, "b": 1}
    assert equal_quotas({"a": 5, "b": 5, "c": 5}, 5) == {"a": 2, "b": 2, "c": 1}
    assert equal_quotas({"a": 0, "b": 2}, 1) == {"a": 0, "b": 1}


def test_the_sample_is_a_function_of_the_seed(tmp_path):
    runs = read(two_benchmarks(tmp_path, "a", right=set()))
    one, again = (draw_sample(runs, num_cases=12, seed=3) for _ in range(2))
    other = draw_sample(runs, num_cases=12, seed=4)
    assert one == again
    assert one.analysis != other.analysis
    assert {case.response_index for case in one.cases} == {0, 1, 2}


def test_slots_are_the_same_in_both_runs_and_right_answers_are_drawn_too(tmp_path):
    runs = read(
        two_benchmarks(tmp_path, "a", right=set(range(0, 60, 2))),
        two_benchmarks(tmp_path, "b", right=set(range(0, 60, 3))),
    )
    sample = draw_sample(runs, num_cases=10, seed=1)
    assert sum(case.run == "a" for case in sample.cases) == 10
    assert sample.correct["a"], "what a comparison counts is not conditioned on errors"
    for unit in sample.units:
        for run in sample.runs:
            assert (unit in sample.correct[run]) != ((run, unit) in sample.items)


def test_item_ids_are_opaque_and_items_json_resolves_them(tmp_path):
    runs = read(
        two_benchmarks(tmp_path, "a", right=set()), two_benchmarks(tmp_path, "b", right=set())
    )
    sample = draw_sample(runs, num_cases=8, seed=1)
    assert len({case.item for case in sample.cases}) == len(sample.cases) == 16
    items = sample.to_json()["items"]
    for case in sample.blind_order():
        assert items[case.item]["run"] == case.run
        assert case.problem_id not in case.item
    order = [case.run for case in sample.blind_order()]
    assert order != sorted(order)


def test_without_an_error_there_is_nothing_to_analyse(tmp_path):
    write_evaluation(tmp_path / "a", [lab_record(i, "correct") for i in range(3)])
    with pytest.raises(ValueError, match="no error to analyse"):
        draw_sample(read(tmp_path / "a"), num_cases=None, seed=1)
    with pytest.raises(ValueError, match="num_cases=0"):
        draw_sample(read(tmp_path / "a"), num_cases=0, seed=1)


def test_lab_labels_name_the_error_that_was_made(tmp_path):
    kinds = ["perception", "reasoning", "calculation", "inconsistent", "format"]
    write_evaluation(tmp_path / "a", [lab_record(i, kind) for i, kind in enumerate(kinds)])
    sample = draw_sample(read(tmp_path / "a"), num_cases=None, seed=1)
    labeller = LabLabels()
    assert all(labeller.can_label(case) for case in sample.cases)
    labels = labeller.label(sample.cases)
    got = {label.problem_id: label.category for label in labels if isinstance(label, ErrorLabel)}
    expected = [*kinds[:3], "inconsistency", "format"]
    assert [got[f"p{i}"] for i in range(5)] == expected


def test_a_verdict_that_the_scene_refutes_is_excluded(tmp_path):
    write_evaluation(tmp_path / "a", [lab_record(0, "perception", verdict="calculation")])
    sample = draw_sample(read(tmp_path / "a"), num_cases=None, seed=1)
    (exclusion,) = LabLabels().label(sample.cases)
    assert exclusion == Exclusion(
        item=sample.cases[0].item, labeller="lab", reason="contradicts_verdict"
    )
