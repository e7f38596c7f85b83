"""Every method against the numbers of its authors' functions, or of the printed formulas; and a check that fails loudly."""

import copy
import importlib
import json
import re
import sys
from dataclasses import replace

import pytest
from lab_module import REPOSITORY

import papo.methods

GOLDEN = REPOSITORY / "tests" / "golden" / "methods"
ALL = REPOSITORY.parent / "shared" / "golden" / "methods"
FILES = sorted(GOLDEN.glob("*.json"))


@pytest.fixture
def check(monkeypatch, capsys):
    """Runs the script in this process; returns its exit status and the lines that it printed."""
    from papo.commands import check_method

    def run(*paths):
        monkeypatch.setattr(sys, "argv", ["check_method.py", *map(str, paths)])
        return check_method.main(), capsys.readouterr().out.splitlines()

    return run


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_cases_of_the_repository_are_reproduced(check, path):
    cases = json.loads(path.read_text())["cases"]
    status, lines = check(path)
    assert status == 0, lines
    assert len(lines) == len(cases) + 1
    left_out = sum(" not offered (" in line for line in lines)
    said = f"{len(cases) - left_out} cases; none differs"
    assert lines[-1] == said + (f"; {left_out} more are of what is not offered" if left_out else "")


def test_cases_that_nothing_computes_are_not_counted_as_equal(check, tmp_path):
    vapo = json.loads((GOLDEN / "pgpo.json").read_text()) | {"method": "VAPO"}
    path = tmp_path / "vapo.json"
    path.write_text(json.dumps(vapo))
    status, lines = check(GOLDEN / "pgpo.json", path)
    assert status == 0
    assert lines[2].startswith("VAPO: not offered (")
    assert lines[-1] == "2 cases; none differs; 2 more are of what is not offered"


def test_every_method_that_is_checked_has_cases_here(check):
    from papo.commands.method_cases import MODULES

    assert {json.loads(path.read_text())["method"] for path in FILES} >= {*MODULES}


@pytest.mark.skipif(not ALL.is_dir(), reason="the whole set of cases is not there")
def test_all_cases_are_reproduced(check):
    from papo.commands.method_cases import MODULES, NOT_CHECKED

    known = {*MODULES, *NOT_CHECKED}
    files = [p for p in sorted(ALL.glob("*.json")) if json.loads(p.read_text())["method"] in known]
    status, lines = check(*files)
    assert status == 0, [line for line in lines if "DIFFERS" in line or "FAILED" in line]
    assert len(files) >= len(MODULES)


# A method, and what is broken in it.
MUTANTS = (
    ("vppo", "VPPO", {"least": 0.5}),
    ("vepo", "VEPO", {"alpha": 0.1}),
    ("pgpo", "PGPO", {"boost": 2.5}),
    ("tor", "ToR", {"reasoning_share": 0.8}),
    ("pivot", "PIVOT", {"discount": 0.7}),
    ("cgpo", "CGPO", {"entropy_share": 0.9}),
    ("tpae", "TPAE", {"boundary": 0.5}),
)


@pytest.mark.parametrize(("stem", "name", "changed"), MUTANTS)
def test_a_method_that_computes_something_else_is_seen(check, monkeypatch, stem, name, changed):
    made = getattr(papo.methods, name)

    def broken(**settings):
        return replace(made(**settings), **changed)

    module = importlib.import_module(f"papo.commands.method_cases.{stem}")
    monkeypatch.setattr(module, name, broken)
    status, lines = check(GOLDEN / f"{stem}.json")
    assert status == 1
    assert any("DIFFERS" in line for line in lines)


def spoilt(change):
    file = copy.deepcopy(json.loads((GOLDEN / "pgpo.json").read_text()))
    change(file)
    return json.dumps(file)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file["cases"][0]["outputs"].update(loss=5.0), "DIFFERS: loss"),
        (lambda file: file["cases"][0]["outputs"].update(new=1.0), "DIFFERS: new is not computed"),
        (lambda file: file["cases"][0]["outputs"].update(loss=float("nan")), "DIFFERS: loss"),
        (lambda file: file["cases"][0]["outputs"].update(loss=[1.0]), "DIFFERS: loss"),
        (lambda file: file["cases"][0]["outputs"].update(loss="much"), "DIFFERS: loss"),
        (lambda file: file["cases"][0]["outputs"].update(weights=[]), "DIFFERS: weights"),
        (lambda file: file["cases"][0]["inputs"].pop("rewards"), "DIFFERS: advantages"),
        (lambda file: file["cases"][0]["inputs"].pop("response_mask"), "FAILED: KeyError"),
        (lambda file: file["cases"][0]["inputs"].update(sensitivity="x"), "FAILED: "),
        (lambda file: file["cases"][0]["config"].update(threshold=7), "FAILED: SettingError"),
        (lambda file: file["cases"][0]["config"].update(threshold=None), "FAILED: "),
    ],
)
def test_a_case_that_differs_or_cannot_be_computed_says_why_in_one_line(
    check, tmp_path, change, said
):
    path = tmp_path / "cases.json"
    path.write_text(spoilt(change))
    status, lines = check(path)
    assert status == 1
    assert len(lines) == 3
    assert said in lines[0]
    assert "DIFFERS" not in lines[1]
    assert lines[-1] == "2 cases; 1 of them or of the files failed"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        (b"\xff\xfe", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "holds no mapping"),
        ("{}", "'method' is missing"),
        (spoilt(lambda file: file.update(method="os")), "the method is one of .*got 'os'"),
        (
            spoilt(lambda file: file.update(method=["PGPO"])),
            "'method' is missing, or of another kind",
        ),
        (spoilt(lambda file: file.update(tolerance="1e-6")), "'tolerance' is missing"),
        (spoilt(lambda file: file.update(tolerance=1e9)), "a tolerance is 0 to 1"),
        (spoilt(lambda file: file.update(tolerance=float("nan"))), "a tolerance is 0 to 1"),
        (spoilt(lambda file: file.update(cases=[])), "it has no case"),
        (spoilt(lambda file: file.update(cases=[3])), "case 0: 'name' is missing"),
        (spoilt(lambda file: file["cases"][1].pop("config")), "case 1: 'config' is missing"),
        (spoilt(lambda file: file["cases"][1].update(outputs={})), "case 1: it has no output"),
    ],
)
def test_a_file_that_holds_no_cases_is_one_line_and_no_success(check, tmp_path, text, said):
    path = tmp_path / "cases.json"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    status, lines = check(path, GOLDEN / "pgpo.json")
    assert status == 1
    assert len(lines) == 4
    assert re.search(said, lines[0]), lines[0]
    assert str(path) in lines[0]
