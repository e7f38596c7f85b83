"""`python analyze.py` as a user runs it: files, printed lines, and clear errors."""

import contextlib
import csv
import io
import json
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import hydra
import pytest
from analysis.chromium import PHONE
from analysis.errors.judge_server import running_judge_server, text_of, verdict
from analysis.evaluation_fixtures import lab_record, record, write_evaluation
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from training.command import contents, sent_on_call
from training.command import run_command as train_command

from papo.commands import analysis, analyze, front_door, overriding
from papo.storage.files import locked

FORMS = ["Equals(LengthOf(Line(A, B)), 8)", "Equals(LengthOf(Line(B, C)), 6)"]


@dataclass
class Outcome:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str


def run_command(*overrides: str) -> Outcome:
    """`python analyze.py OVERRIDES` in this process."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(front_door, "_failures", [])
        patch.setattr(sys, "argv", ["analyze.py", *overrides])
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            try:
                analyze.main()
                code = front_door.exit_code()
            except SystemExit as exit:
                code = int(exit.code or 0)
    return Outcome(code, stdout.getvalue(), stderr.getvalue())


def succeed(*overrides: str) -> str:
    """Runs the command and returns what it printed."""
    outcome = run_command(*overrides)
    assert outcome.code == 0, outcome.stderr
    return outcome.stdout


def fail(*overrides: str) -> str:
    """Runs the command, which has to fail, and returns its message."""
    outcome = run_command(*overrides)
    assert outcome.code == 1
    return outcome.stderr


@pytest.fixture
def two_runs(tmp_path: Path) -> str:
    before = ["perception"] * 12 + ["reasoning"] * 4 + ["correct"] * 8
    after = ["correct"] * 9 + ["perception"] * 5 + ["calculation"] * 2 + ["correct_but_misread"] * 8
    for name, kinds in (("before", before), ("after", after)):
        write_evaluation(tmp_path / name, [lab_record(i, kind) for i, kind in enumerate(kinds)])
    return f"runs=[{tmp_path / 'before'},{tmp_path / 'after'}]"


def summary_of(folder: Path):
    return json.loads((folder / "summary.json").read_text())


def test_the_command_writes_every_file_and_says_what_it_found(tmp_path, two_runs):
    out = tmp_path / "out"
    printed = succeed(two_runs, f"run_dir={out}")
    assert "perception errors went from 12 to 5 of 24 slots" in printed
    assert "75.0 [50.5, 89.8] % of the wrong answers misread the picture" in printed
    assert "67.0 [60.2, 73.1] %" in printed, "the paper's number"
    names = {path.name for path in out.iterdir()}
    assert names >= {
        *("run.json", "config.yaml", "items.json", "labels.jsonl", "exclusions.jsonl"),
        *("summary.json", "table.csv", "transitions.csv", "report.md", "report.html"),
        *("shares.svg", "transitions.svg", "result.json"),
        *("label_page.html", "label_studio.json", "label_studio.xml"),
    }
    assert json.loads((out / "result.json").read_text())["status"] == "finished"
    summary = summary_of(out)
    assert summary["headline"]["labeller"] == "lab"
    assert summary["right_although_misread"] == {"before": 0, "after": 8}
    with (out / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    perception = next(
        row
        for row in rows
        if (row["run"], row["benchmark"], row["category"]) == ("before", "all", "perception")
    )
    assert (perception["count"], perception["labelled"]) == ("12", "16")
    items = json.loads((out / "items.json").read_text())
    labels = [json.loads(line) for line in (out / "labels.jsonl").read_text().splitlines()]
    assert {label["item"] for label in labels} == set(items["items"])


def test_equal_commands_write_equal_results(tmp_path, two_runs):
    for name in ("one", "two"):
        succeed(two_runs, f"run_dir={tmp_path / name}", "num_cases=6")
    for file in ("summary.json", "labels.jsonl", "items.json", "report.html", "shares.svg"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_human_labels_come_back_into_the_same_analysis(tmp_path, two_runs):
    succeed(two_runs, f"run_dir={tmp_path / 'first'}")
    items = json.loads((tmp_path / "first" / "items.json").read_text())
    export = {
        "format": "papo-labels-1",
        "analysis": items["analysis"],
        "labeller": "Ada",
        "labels": [
            {"item": item, "category": "perception", "quote": "", "note": "", "seconds": 2}
            for item in items["items"]
        ],
    }
    labels = tmp_path / "ada.json"
    labels.write_text(json.dumps(export))
    succeed(two_runs, f"run_dir={tmp_path / 'second'}", f"human_labels=[{labels}]")
    summary = summary_of(tmp_path / "second")
    assert set(summary["labellers"]) == {"human:Ada", "lab"}
    (agreement,) = summary["agreement"]
    assert agreement["items"] == 23
    assert agreement["agreed"] == 17, "12 + 5 misreadings"
    message = fail(
        two_runs, f"run_dir={tmp_path / 'third'}", f"human_labels=[{labels}]", "num_cases=3"
    )
    assert "labels the analysis" in message
    assert not (tmp_path / "third" / "run.json").exists()


def test_a_judge_is_asked_counted_and_checked_against_the_lab(tmp_path, two_runs, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0000")

    def behave(request, before):
        text = text_of(request)
        category = "perception" if "b = 9" in text else "reasoning"
        return 200, verdict(category, "a = 3")

    with running_judge_server(behave) as server:
        judge = [
            *("judge=openai", "judge.model=m", f"judge.base_url={server.url}"),
            f"judge.cache={tmp_path / 'cache'}",
        ]
        succeed(two_runs, f"run_dir={tmp_path / 'one'}", "min_validated=10", *judge)
        asked = len(server.requests)
        succeed(two_runs, f"run_dir={tmp_path / 'two'}", "min_validated=10", *judge)
        assert len(server.requests) == asked == 23
    summary = summary_of(tmp_path / "one")
    judged = summary["labellers"]["judge:m"]
    assert (judged["checked"], judged["validated"]) == (23, True)
    assert judged["runs"]["before"]["corrected"]["perception"]["value"] == pytest.approx(0.75)
    assert summary["headline"]["labeller"] == "lab", "exact labels come before a judge"
    assert summary["judge"][0]["requests"] == 23
    assert summary_of(tmp_path / "two")["judge"][0]["from_cache"] == 23
    for path in (tmp_path / "one").iterdir():
        assert b"sk-test-0000" not in path.read_bytes()


def test_geometry_is_labelled_by_rule_and_not_headlined(tmp_path):
    folder = write_evaluation(
        tmp_path / "geo",
        [record(0, "From the figure AB = 9."), record(1, "AB = 8, 3 + 5 = 9"), record(2, "Well.")],
        truth={"facts": FORMS, "text_facts": []},
        question="<image>Find x.",
    )
    printed = succeed(f"runs=[{folder}]", f"run_dir={tmp_path / 'out'}")
    shares = summary_of(tmp_path / "out")["labellers"]["geometry"]["runs"]["geo"]["shares"]
    counts = {name: one["count"] for name, one in shares.items() if one["count"]}
    assert counts == {"perception": 1, "calculation": 1, "other": 1}
    assert "lower bound" in printed
    assert "No headline" in printed


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attributes if k in ("src", "href")]
        assert not any(name.startswith("on") for name, _ in attributes)


def test_the_report_fits_a_phone_in_light_and_dark(browser, tmp_path, two_runs):
    succeed(two_runs, f"run_dir={tmp_path / 'out'}")
    tab = browser.open(tmp_path / "out" / "report.html", size=PHONE)
    assert tab.run("document.images.length") > 0
    assert tab.faults() == []
    tab.dark()
    assert tab.faults() == []


def test_hostile_responses_are_text_on_every_page(tmp_path):
    attack = "</script><img src=x onerror=alert(1)><script>alert(2)</script>| [bold] AB = 9\n"
    folder = write_evaluation(
        tmp_path / "geo",
        [record(0, attack), record(1, attack + "x" * 100_000, answer="<b>7</b>")],
        truth={"facts": FORMS},
        question=attack + "<image>",
    )
    succeed(f"runs=[{folder}]", f"run_dir={tmp_path / 'out'}")
    page = (tmp_path / "out" / "report.html").read_text()
    tags = Tags()
    tags.feed(page)
    assert "script" not in tags.tags
    assert all(address.startswith(("#", "data:")) for address in tags.addresses)
    assert "more characters" in page
    assert len(page) < 2_000_000
    label_page = (tmp_path / "out" / "label_page.html").read_text()
    assert label_page.count("<script") == 2, "its data and its own script"


SCENE = {"operation": "area", "a": 3, "b": 4, "result": 12}


@pytest.mark.parametrize(
    "truth",
    [
        SCENE | {"operation": "volume"},
        SCENE | {"operation": {"x": 1}},
        SCENE | {"a": "3"},
        SCENE | {"result": [1]},
        {"operation": "area", "a": 3, "result": 12},
        {"facts": FORMS, "text_facts": 7},
        {"facts": 7},
        {"facts": [1, None, {}, "Equals((((", "Equals(" * 5000]},
    ],
)
def test_a_truth_that_no_labeller_understands_is_passed_over(tmp_path, truth):
    folder = write_evaluation(tmp_path / "a", [lab_record(0, "perception")], truth=truth)
    assert "No headline" in succeed(f"runs=[{folder}]", f"run_dir={tmp_path / 'out'}")


def test_characters_that_no_file_can_hold_are_replaced(tmp_path):
    folder = write_evaluation(
        tmp_path / "a", [record(0, "AB = \ud800 9", answer="\ud801")], truth={"facts": FORMS}
    )
    succeed(f"runs=[{folder}]", f"run_dir={tmp_path / 'out'}")
    assert "AB = ? 9" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("response", 5), ("response_index", "a"), ("correct", "yes"), ("verdicts", None)),
        *(("answer", 5), ("benchmark", None)),
    ],
)
def test_a_value_of_another_type_is_an_error_that_names_its_line(tmp_path, name, value):
    folder = write_evaluation(tmp_path / "a", [record(0, "AB = 9"), record(1, "AB = 9")])
    first, second = (folder / "responses.jsonl").read_text().splitlines()
    damaged = json.dumps(json.loads(second) | {name: value})
    (folder / "responses.jsonl").write_text(f"{first}\n{damaged}\n")
    message = fail(f"runs=[{folder}]", f"run_dir={tmp_path / 'out'}")
    assert "line 2" in message
    assert name in message


@pytest.mark.parametrize("file", ["responses.jsonl", "problems.jsonl"])
def test_a_file_that_is_no_text_is_named(tmp_path, file):
    folder = write_evaluation(tmp_path / "a", [record(0, "AB = 9")])
    (folder / file).write_bytes(b"\xff\xfe\n")
    assert f"{file} is damaged" in fail(f"runs=[{folder}]", f"run_dir={tmp_path / 'out'}")


def test_a_problem_without_a_picture_or_with_a_broken_one_is_shown(tmp_path):
    folder = write_evaluation(tmp_path / "a", [lab_record(i, "perception") for i in range(2)])
    (folder / "images" / "one.png").write_bytes(b"broken")
    succeed(f"runs=[{folder}]", f"run_dir={tmp_path / 'out'}")
    assert "cannot be read" in (tmp_path / "out" / "report.html").read_text()


def test_a_run_folder_is_not_written_twice_whatever_was_deleted(tmp_path, two_runs):
    out = tmp_path / "out"
    succeed(two_runs, f"run_dir={out}")
    for name in (None, "report.html", "result.json", ".lock"):
        if name is not None:
            (out / name).unlink()
        before = contents(out)
        assert "already holds a run" in fail(two_runs, f"run_dir={out}")
        assert contents(out) == before


def test_a_second_process_is_refused(tmp_path, two_runs):
    with locked(tmp_path / "out"):
        said = fail(two_runs, f"run_dir={tmp_path / 'out'}")
    assert "another process writes to" in said
    assert not (tmp_path / "out" / "run.json").exists()


@pytest.mark.parametrize("content", [b"[" * 100_000, b"{}"])
def test_a_damaged_result_is_named_with_what_to_do(tmp_path, two_runs, content):
    file = tmp_path / "before" / "result.json"
    file.write_bytes(content)
    said = fail(two_runs, f"run_dir={tmp_path / 'out'}")
    assert f"{file} is damaged: " in said
    assert "Delete it, and finish the evaluation" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["num_cases=0"], "num_cases=0"),
        (["min_validated=0"], "min_validated"),
        (["seed=-1"], "seed"),
        (["judge=openai"], "judge.model"),
        (["view=blank"], "no response in the view 'blank'"),
        (["human_labels=labels.json"], "human_labels is a list"),
        (["human_labels=[nowhere.json]"], "no labels file"),
        (["judge=openai", "judge.model=m", "judge.api_key_variable=NO_SUCH_KEY"], "NO_SUCH_KEY"),
    ],
)
def test_an_impossible_setting_is_named_before_anything_is_written(
    tmp_path, two_runs, overrides, message
):
    assert message in fail(two_runs, f"run_dir={tmp_path / 'out'}", *overrides)
    assert not (tmp_path / "out" / "run.json").exists()


def test_a_command_without_runs_says_what_it_wants(tmp_path):
    assert "set runs=[FOLDER]" in fail(f"run_dir={tmp_path / 'out'}")


def test_a_judge_that_never_answers_leaves_a_report_that_says_so(tmp_path, two_runs):
    with running_judge_server(lambda request, before: (503, {"error": "busy"})) as server:
        printed = succeed(
            two_runs,
            f"run_dir={tmp_path / 'out'}",
            *("judge=openai", "judge.model=m", "judge.api_key_variable=null"),
            *(f"judge.base_url={server.url}", f"judge.cache={tmp_path / 'cache'}"),
            *("judge.max_retries=0", "num_cases=3"),
        )
    assert "server_error" in printed
    assert (tmp_path / "out" / "shares.svg").exists(), "the lab's"
    assert not (tmp_path / "out" / "shares_2.svg").exists()


def test_a_failed_analysis_says_so_in_its_folder(tmp_path, two_runs):
    message = fail(
        two_runs,
        f"run_dir={tmp_path / 'out'}",
        "judge=openai",
        *("judge.model=m", "judge.base_url=http://127.0.0.1:9/v1", "judge.max_retries=0"),
        *("judge.api_key_variable=null", f"judge.cache={tmp_path / 'cache'}"),
    )
    assert "no judge can be reached" in message
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["status"] == "failed"
    assert "judge.base_url" in result["error"]


def test_the_local_judge_composes():
    with hydra.initialize_config_dir(front_door.CONFIG_FOLDER, version_base="1.3"):
        config = hydra.compose(
            "analyze", ["judge=local", "judge.policy.path=/models/x", "runs=[a]", "run_dir=out"]
        )
    node = OmegaConf.to_container(config.judge, resolve=True)
    assert node["_target_"] == "papo.analysis.errors.labellers.judge.LocalJudge"
    assert node["policy"]["_target_"] == "papo.models.load_policy"
    assert node["policy"]["path"] == "/models/x"
    assert node["policy"]["temperature"] == 1.0


def training_run(folder: Path, data: str = "papo.lab.PerceptionLabProblems") -> Path:
    """As much of a training run's folder as is looked at before it is evaluated."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "rollout_000005.ckpt").write_bytes(b"")
    (folder / "config.yaml").write_text(f"data: {{_target_: {data}}}\n")
    return folder


@pytest.mark.parametrize(
    "text",
    [
        *(
            "a b, c",
            "it's",
            "C:\\runs",
            "ends\\",
            "two\\\\",
            "both\\'s",
            "both\\\\'",
            "{a: 1}",
            "null",
        ),
        *("outputs/2026-11-30_12-00-00", "1/2", "on/off", "/a@b", "e/5", "-/x", "a//", "true/1"),
    ],
)
def test_any_path_comes_back_from_an_override(text):
    (override,) = OverridesParser.create().parse_overrides([overriding.quoted("path", text)])
    assert override.value() == text


def test_a_plain_path_is_printed_without_quotes():
    assert overriding.quoted("checkpoint", Path("outputs/lab/1")) == "checkpoint=outputs/lab/1"


def test_a_training_run_is_evaluated_first_and_gives_its_name(tmp_path, monkeypatch):
    run = training_run(tmp_path / "my run, 'best'")
    commands = []

    def evaluate(command, **_):
        commands.append(command)
        given = {
            one.key_or_group: one.value()
            for one in OverridesParser.create().parse_overrides(command[4:])
        }
        if not Path(given["run_dir"]).exists():
            write_evaluation(Path(given["run_dir"]), [lab_record(0, "perception")])
        assert given == {
            "checkpoint": str(run / "checkpoints" / "rollout_000005.ckpt"),
            "run_dir": given["run_dir"],
            "resume": True,
            "benchmark": "lab",
            "rollout": "greedy",
        }
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(analysis, "subprocess", SimpleNamespace(run=evaluate))
    escaped = str(run).replace("'", "\\'")
    given = [f"runs=['{escaped}']", "+evaluate.rollout=greedy"]
    printed = succeed(*given, f"run_dir={tmp_path / 'one'}")
    assert f"{run.name}: 100.0" in printed
    assert commands[0][1:4] == ["-m", "papo", "evaluate"]
    succeed(*given, f"run_dir={tmp_path / 'two'}")
    assert commands[0] == commands[1], "the second time it is found where the first put it"
    assert [folder.parent for folder in (run / "evaluations").iterdir()] == [run / "evaluations"]


def test_a_training_run_that_cannot_be_evaluated_is_one_error(tmp_path, monkeypatch):
    run = training_run(tmp_path / "run")
    fails = SimpleNamespace(run=lambda command, **_: subprocess.CompletedProcess(command, 1))
    monkeypatch.setattr(analysis, "subprocess", fails)
    out = f"run_dir={tmp_path / 'out'}"
    assert "evaluation of" in fail(f"runs=[{run}]", out)
    other = training_run(tmp_path / "other", data="papo.data.HubProblems")
    assert "evaluate.benchmark=geo3k" in fail(f"runs=[{other}]", out)
    (run / "checkpoints" / "rollout_000005.ckpt").unlink()
    assert "no checkpoint" in fail(f"runs=[{run}]", out)


@pytest.mark.slow
def test_from_a_finished_run_to_what_it_misreads_in_one_command(
    tmp_path, capfd, monkeypatch, forked_python
):
    # What the command starts finds the libraries imported.
    monkeypatch.setattr(sys, "executable", forked_python)
    run = tmp_path / "run"
    assert train_command(f"run_dir={run}").code == 0
    printed = succeed(
        f"runs=[{run}]",
        f"run_dir={tmp_path / 'out'}",
        *("+evaluate.benchmark.limit=4", "+evaluate.rollout.num_responses=2"),
    )
    assert "Evaluating" in printed
    assert "run misreads" in printed
    page = (tmp_path / "out" / "report.html").read_text()
    assert "read as" in page
    assert '<img alt="picture of the problem"' in page.split('id="misread"')[1].split("<section")[0]


@pytest.mark.parametrize(("mode", "message"), [("offline", "needs the package"), ("on", "'on'")])
def test_wandb_that_is_not_there_is_said_before_anything_is_done(
    tmp_path, two_runs, monkeypatch, mode, message
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert message in fail(two_runs, f"run_dir={tmp_path / 'out'}", f"wandb.mode='{mode}'")
    assert not (tmp_path / "out" / "run.json").exists()


def test_a_signal_ends_the_analysis_with_its_code_and_the_command_for_another_one(
    tmp_path, two_runs, monkeypatch
):
    sent_on_call(monkeypatch, analysis, "label_sample", signal.SIGTERM)
    outcome = run_command(two_runs, f"run_dir={tmp_path / 'out'}")
    assert outcome.code == 143
    [line] = outcome.stderr.splitlines()
    assert line.startswith(f"interrupted by SIGTERM: {tmp_path / 'out'} ")
    assert line.endswith(f"Go on with: {shlex.join(['python', 'analyze.py', two_runs])}")
    assert json.loads((tmp_path / "out" / "result.json").read_text())["status"] == "interrupted"


def test_misread_numbers_and_facts_are_printed_and_on_the_page(tmp_path, two_runs):
    printed = succeed(two_runs, f"run_dir={tmp_path / 'out'}")
    assert "4 read as 9" in printed
    # 12 of 48 numbers: b = 9 in each of the 12 misreadings
    assert "before misreads 25.0" in printed
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<b>4 read as 9</b>, 12 times" in page
    assert "What is misread" in (tmp_path / "out" / "report.md").read_text()


def test_results_can_be_logged_to_wandb_offline(tmp_path, two_runs):
    succeed(two_runs, f"run_dir={tmp_path / 'out'}", "wandb.mode=offline")
    assert list((tmp_path / "out").rglob("*.wandb"))
    assert list((tmp_path / "out").rglob("*.table.json"))
