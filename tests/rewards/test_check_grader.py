import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RIGHT = {"prediction": "\\boxed{1}", "answer": "1", "expected": True, "note": "one is one"}
DISPUTED = {"prediction": "\\boxed{1}", "answer": "2", "expected": True, "note": "one is two"}


def check_grader(path, *arguments):
    return subprocess.run(
        [sys.executable, "scripts/check_grader.py", str(path), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def script():
    from papo.commands import check_grader

    return check_grader


def write(path, *rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_agreement_and_disagreements_are_printed(tmp_path):
    result = check_grader(write(tmp_path / "cases.jsonl", RIGHT, "", DISPUTED))
    assert result.returncode == 0, result.stderr
    for grader in ("mathruler", "math_verify", "combined"):
        assert f"{grader}: 1/2 agree" in result.stdout
    assert "line 3: rejects" in result.stdout
    assert "one is two" in result.stdout


@pytest.mark.parametrize(("minimum", "status"), [("1", 0), ("2", 1)])
def test_the_exit_status_tells_whether_the_minimum_was_reached(
    tmp_path, minimum, status, script, monkeypatch
):
    path = write(tmp_path / "cases.jsonl", RIGHT, DISPUTED)
    words = ["check_grader.py", str(path), "--grader", "combined", "--minimum", minimum]
    monkeypatch.setattr(sys, "argv", words)
    assert script.main() == status


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{not json", "line 2: not JSON"),
        ("[1]", "line 2: an object"),
        ({"prediction": "a", "answer": "b"}, "line 2: column 'expected'"),
        ({"prediction": "a", "answer": 4, "expected": True}, "line 2: column 'answer'"),
    ],
)
def test_a_malformed_line_is_named_by_number(tmp_path, row, message, script, monkeypatch, capsys):
    path = write(tmp_path / "cases.jsonl", RIGHT, row)
    monkeypatch.setattr(sys, "argv", ["check_grader.py", str(path)])
    assert script.main() == 2
    assert message in capsys.readouterr().err


def test_a_missing_file_is_named(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["check_grader.py", str(tmp_path / "nowhere.jsonl")])
    assert script.main() == 2
    assert "nowhere.jsonl" in capsys.readouterr().err


def test_without_a_file_the_shipped_one_is_named_in_one_line(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["check_grader.py"])
    assert script.main() == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "tests/golden/grader_cases.jsonl" in printed
    assert (ROOT / "tests/golden/grader_cases.jsonl").is_file()


def test_a_file_in_another_encoding_is_named(script, tmp_path, monkeypatch, capsys):
    path = tmp_path / "cases.jsonl"
    path.write_text(json.dumps(RIGHT), encoding="utf-16")
    monkeypatch.setattr(sys, "argv", ["check_grader.py", str(path)])
    assert script.main() == 2
    assert "cases.jsonl is no text in UTF-8" in capsys.readouterr().err


def test_help_names_the_shipped_cases(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["check_grader.py", "--help"])
    with pytest.raises(SystemExit):
        script.main()
    assert "tests/golden/grader_cases.jsonl" in capsys.readouterr().out


def test_a_minimum_that_nobody_would_measure_is_refused(script, tmp_path, monkeypatch, capsys):
    arguments = ["--grader", "mathruler", "--minimum", "1", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["check_grader.py", *arguments])
    with pytest.raises(SystemExit):
        script.main()
    assert "combined" in capsys.readouterr().err
