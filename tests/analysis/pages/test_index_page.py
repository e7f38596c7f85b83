"""The page of a folder of runs: what ran, what came of it, and what in the folder is no run."""

import json
import sys
from html import unescape

import pytest
from analysis.chromium import PHONE
from analysis.evaluation_fixtures import record, write_evaluation

from papo.analysis.pages.index import build_index_page
from papo.analysis.pages.index_entries import find_entries
from papo.commands import report

HOSTILE = 'javascript:alert(1)"><img src=x onerror=alert(2)>'


def write_run(
    folder, *, status="finished", accuracy=0.5, rows=20, sweep=None, overrides=("seed=3",)
):
    folder.mkdir(parents=True)
    run = {"started": "2026-01-02T03:04:05+00:00", "overrides": list(overrides), "seed": 3}
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "config.json").write_text(json.dumps({"seed": 3, "sweep": sweep or {}}))
    lines = [f"{step},{step / 20},{step / 20}" for step in range(1, rows + 1)]
    header = "rollout_step,reward/mean,resample/drawn_correct"
    (folder / "metrics.csv").write_text("\n".join([header, *lines]) + "\n")
    if status is not None:
        report = {"accuracy": {"value": accuracy, "low": 0.4, "high": 0.6}}
        after = {"counter-prior": report | {"shares": {"perception": {"value": 0.1}}}}
        result = {"status": status, "evaluation": {"before": after, "after": after}}
        if status == "failed":
            result |= {"error": "no memory", "evaluation": None}
        (folder / "result.json").write_text(json.dumps(result))
    return folder


@pytest.fixture
def outputs(tmp_path):
    root = tmp_path / "outputs"
    finished = write_run(root / "lab" / "one")
    (finished / "report.html").write_text("page")
    write_run(root / "lab" / "two", status=None, rows=7)
    write_run(root / "lab" / "three", status="failed", rows=4)
    evaluation = write_evaluation(root / "eval", [record(i, "a") for i in range(2)])
    (evaluation / "responses.html").write_text("page")
    for seed in (1, 2):
        write_run(root / "sweeps" / "s" / f"arm_{seed}", sweep={"name": "s", "arm": f"a{seed}"})
    (root / "sweeps" / "s" / "multirun.yaml").write_text("")
    return root


def test_runs_say_how_they_ended_and_what_came_of_them(outputs):
    entries = {one.folder: one for one in find_entries(outputs)}
    assert {name: one.kind for name, one in entries.items() if not one.sweep} == {
        "lab/one": "run",
        "lab/two": "run",
        "lab/three": "run",
        "eval": "evaluation",
        "sweeps/s": "sweep",
    }
    assert entries["lab/one"].accuracies == {"counter-prior": (0.5, 0.4, 0.6)}
    assert entries["lab/one"].reward == pytest.approx(0.975)
    assert not entries["lab/one"].collapse
    assert entries["lab/two"].state == "unfinished after 7 rollouts"
    assert entries["lab/three"].state == "failed: no memory"
    page = unescape(build_index_page(outputs))
    assert "3 training runs, 1 sweep, 1 evaluation." in page
    assert "counter-prior: 50.0 [40.0,\u00a060.0]" in page
    assert 'href="./lab/one/report.html"' in page
    assert 'href="./eval/responses.html"' in page


def test_the_jobs_of_a_sweep_are_one_row(outputs):
    page = build_index_page(outputs)
    assert "arm_1" not in page
    row = page[page.index('id="sweeps"') :].split("</tbody>")[0]
    assert "<td>2</td><td>2</td><td>0 of 2</td><td>0</td>" in row


def test_a_validated_run_without_an_evaluation_shows_its_last_validation(outputs):
    folder = write_run(outputs / "own", status=None)
    lines = ["rollout_step,validation/accuracy", "1,nan", "2,0.25", "3,nan"]
    (folder / "metrics.csv").write_text("\n".join(lines))
    [found] = [one for one in find_entries(outputs) if one.folder == "own"]
    assert found.accuracies == {"validation": (0.25, None, None)}
    assert "validation: 25.0</td>" in build_index_page(outputs)


@pytest.mark.parametrize("name", ["run.json", "result.json", "metrics.csv", "config.json"])
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"[" * 100_000, b"\xff\xfe", b'{"evaluation": [1]}', b'{"overrides": 7}'],
)
def test_whatever_is_damaged_is_listed_and_stops_nothing(outputs, name, content):
    (outputs / "lab" / "one" / name).write_bytes(content)
    entries = {one.folder: one for one in find_entries(outputs)}
    assert entries["lab/two"].kind == "run"
    assert entries["lab/one"].kind in ("run", "unreadable")
    if entries["lab/one"].kind == "unreadable":
        assert entries["lab/one"].what
    assert "lab/one" in build_index_page(outputs)


def test_half_a_row_of_a_running_run_is_no_damage(outputs):
    with (outputs / "lab" / "two" / "metrics.csv").open("a") as file:
        file.write("8,0.")
    [found] = [one for one in find_entries(outputs) if one.folder == "lab/two"]
    assert found.state == "unfinished after 7 rollouts"


def test_what_papo_did_not_write_is_listed_as_such(outputs, tmp_path):
    (outputs / "photos").mkdir()
    (outputs / "photos" / "a.jpg").write_bytes(b"")
    (outputs / "loop").symlink_to(outputs)
    (outputs / "odd" / "run.json").mkdir(parents=True)
    entries = {one.folder: one for one in find_entries(outputs)}
    assert entries["photos"].what == "holds nothing that papo wrote"
    assert entries["odd"].kind == "unreadable"
    assert "loop" not in entries
    assert "2 folders left out" in build_index_page(outputs)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no run, evaluation, analysis or sweep"):
        build_index_page(tmp_path / "empty")
    with pytest.raises(ValueError, match="there is no folder"):
        build_index_page(tmp_path / "nowhere")


def test_hostile_names_stay_text_and_lead_nowhere_else(browser, outputs, tmp_path):
    folder = write_run(outputs / "x" / HOSTILE.replace("/", "|"), overrides=[HOSTILE, "x" * 3_000])
    (folder / "report.html").write_text("page")
    write_run(outputs / ("y" * 200), status="failed")
    file = outputs / "index.html"
    file.write_text(build_index_page(outputs))
    tab = browser.open(file, size=PHONE)
    assert tab.run("document.querySelectorAll('script, [onerror]').length") == 0
    protocols = tab.run("[...document.querySelectorAll('main a')].map(a => a.protocol)")
    assert set(protocols) == {"file:"}
    assert tab.faults() == []
    tab.dark()
    assert tab.faults() == []


def test_the_command_knows_a_run_a_sweep_and_a_folder_of_both(
    outputs, tmp_path, monkeypatch, capsys
):
    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["papo report", *map(str, arguments)])
        return report.main(), capsys.readouterr()

    code, said = command(outputs)
    assert code == 0, said.err
    assert (outputs / "index.html").read_text() == build_index_page(outputs)
    (tmp_path / "elsewhere").mkdir()
    code, said = command(outputs, "--output", tmp_path / "elsewhere" / "index.html")
    assert code == 0, said.err
    page = (tmp_path / "elsewhere" / "index.html").read_text()
    assert 'href="./../outputs/lab/one/report.html"' in page
    code, said = command(outputs / "lab" / "one")
    assert code == 0, said.err
    assert str(outputs / "lab" / "one" / "report.html") in said.out
    code, said = command(outputs / "sweeps" / "s", "--baseline", "a1")
    assert code == 0, said.err
    assert (outputs / "sweeps" / "s" / "report.csv").exists()
    (tmp_path / "empty").mkdir()
    code, said = command(tmp_path / "empty")
    assert code == 1
    assert "holds no run" in said.err
