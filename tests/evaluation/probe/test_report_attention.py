"""scripts/report_attention.py on evaluations of the lab: page, tables, and what it refuses."""

import csv
import json
import sys

import pytest
from evaluation.evaluation_command import run_evaluation

from scripts import report_attention


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attention") / "evaluation"
    outcome = run_evaluation(f"run_dir={folder}")
    assert outcome.code == 0, outcome.stderr
    return folder


def report(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["report_attention.py", *map(str, arguments)])
    code = report_attention.main()
    return code, capsys.readouterr()


def test_a_page_and_tables_of_the_drawn_problems(evaluation, tmp_path, monkeypatch, capsys):
    settings = ("--count", 2, "--shown", 1, "--output", tmp_path / "out")
    code, _ = report(monkeypatch, capsys, evaluation, *settings)
    assert code == 0
    text = (tmp_path / "out" / "attention.html").read_text()
    assert text.count("<article>") == 1
    assert "data:image/jpeg" in text
    lines = [
        json.loads(line) for line in (tmp_path / "out" / "attention.jsonl").read_text().splitlines()
    ]
    assert len(lines) == 2
    num_layers = len(lines[0]["image_share"])
    rows = list(csv.DictReader((tmp_path / "out" / "attention.csv").read_text().splitlines()))
    assert len(rows) == 2 * num_layers
    assert all(0 < float(row["image_share"]) < 1 for row in rows)
    assert {row["num_image_tokens"] for row in rows} == {"4"}
    # The same draw and the same numbers again.
    again = ("--count", 2, "--shown", 1, "--output", tmp_path / "again")
    report(monkeypatch, capsys, evaluation, *again)
    assert (tmp_path / "again" / "attention.html").read_text() == text


def test_other_weights_than_were_evaluated_are_refused(evaluation, monkeypatch, capsys):
    file = evaluation / "run.json"
    before = file.read_text()
    facts = json.loads(before)
    facts["checkpoint"]["weights"] = "0" * 64
    file.write_text(json.dumps(facts))
    try:
        code, output = report(monkeypatch, capsys, evaluation, "--count", 1)
    finally:
        file.write_text(before)
    assert code == 1
    assert "other weights" in output.err


@pytest.mark.parametrize("count", [0, -1])
def test_no_problem_is_refused(evaluation, monkeypatch, capsys, count):
    code, output = report(monkeypatch, capsys, evaluation, "--count", count)
    assert code == 1
    assert "--count" in output.err


def test_a_missing_folder_is_one_message(tmp_path, monkeypatch, capsys):
    code, output = report(monkeypatch, capsys, tmp_path / "none")
    assert code == 1
    assert output.err.startswith("error: there is no folder")
