"""The dashboard shows only what runs log, and is built without an account."""

import csv
import json
import runpy
import sys

import pytest
from PIL import Image
from training.command import REPOSITORY, run_command

from papo.analysis.pages.dashboard import DASHBOARD, X_AXIS, Curves, Gallery, LoggedTable


def dashboard_metrics():
    """Yields every metric a chart of the dashboard reads, the x-axis first."""
    yield X_AXIS
    for section in DASHBOARD:
        for panel in section.panels:
            if isinstance(panel, Curves):
                yield from panel.metrics


def dashboard_media():
    """Yields every key of media and tables the dashboard shows."""
    for section in DASHBOARD:
        for panel in section.panels:
            if isinstance(panel, Gallery):
                yield from panel.media
            if isinstance(panel, LoggedTable):
                yield panel.name


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """Every name that two runs log: one of PerceptionLab, one of mathematics with a tiny model."""
    folder = tmp_path_factory.mktemp("dashboard")
    rows = []
    for index in range(2):
        Image.new("RGB", (56, 56), (200, 60 * index, 90)).save(folder / f"{index}.png")
        row = {"problem": "<image>How many?", "answer": "3", "images": [f"{index}.png"]}
        rows.append(json.dumps({"id": str(index), **row}))
    (folder / "train.jsonl").write_text("\n".join(rows))
    commands = {
        "lab": (),
        "math": (
            "+experiment=papo_geo3k",
            *("model=tiny_qwen2_5_vl", "data=local", f"data.path={folder}", "trainer=cpu"),
            "rollout.max_response_tokens=4",
        ),
    }
    names = set()
    for name, overrides in commands.items():
        outcome = run_command(*overrides, f"run_dir={folder / name}")
        assert outcome.code == 0, outcome.stderr
        metrics = next(csv.reader((folder / name / "metrics.csv").read_text().splitlines()))
        timings = next(csv.reader((folder / name / "timings.csv").read_text().splitlines()))
        names |= {*metrics, *(f"seconds/{phase}" for phase in timings)}
    return names


def test_every_metric_of_the_dashboard_is_logged(logged):
    assert set(dashboard_metrics()) <= logged


def test_every_metric_and_every_key_of_the_dashboard_is_documented():
    metrics = (REPOSITORY / "docs" / "metrics.md").read_text()
    assert not [name for name in dashboard_metrics() if f"`{name}`" not in metrics]
    media = (REPOSITORY / "docs" / "dashboard.md").read_text()
    assert not [name for name in dashboard_media() if f"`{name}`" not in media]


def test_the_media_of_the_dashboard_are_those_of_the_rollout_table(tmp_path):
    from papo.training.callbacks.wandb_rollouts import wandb_rollouts

    Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
    row = {
        **{"rollout_step": 1, "problem": "p", "prompt": "q", "answer": "3", "response": "3"},
        **{"images": ["picture.png"], "masked_images": ["picture.png"], "reward": 1.0},
        **{"correct": True, "components": {}, "tokens": ["3"], "perception_kl": [0.1]},
    }
    row["masked_images"] = ["masked.png"]
    Image.new("RGB", (8, 8)).save(tmp_path / "masked.png")
    assert set(wandb_rollouts(tmp_path, [row])) == set(dashboard_media())


def test_the_sections_are_the_six_asked_for():
    assert [section.name for section in DASHBOARD] == [
        *("Overview", "Perception", "Policy health", "Rewards", "Rollouts", "System")
    ]


# wandb-workspaces 0.4.13 is written for an older pydantic.
ignores_pydantic = pytest.mark.filterwarnings("ignore:Pydantic V1 style:DeprecationWarning")


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(REPOSITORY / "scripts" / "make_dashboard.py"))


def run_script(script, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["make_dashboard.py", *arguments])
    return script["main"]()


@ignores_pydantic
def test_a_dry_run_writes_every_panel_over_rollouts(script, tmp_path, monkeypatch, capsys):
    pytest.importorskip("wandb_workspaces")
    file = tmp_path / "view.json"
    code = run_script(
        script, monkeypatch, "--entity", "me", "--project", "mine", "--dry-run", str(file)
    )
    assert code == 0, capsys.readouterr().err
    view = json.loads(file.read_text())
    assert (view["entity"], view["project"]) == ("me", "mine")
    sections = view["spec"]["section"]["panelBankConfig"]["sections"]
    assert [one["name"] for one in sections] == [section.name for section in DASHBOARD]
    drawn = [panel for one in sections for panel in one["panels"]]
    plots = [panel["config"] for panel in drawn if "metrics" in panel["config"]]
    assert {plot["xAxis"] for plot in plots} == {"rollout_step"}
    expected = [p.metrics for s in DASHBOARD for p in s.panels if isinstance(p, Curves)]
    assert [tuple(plot["metrics"]) for plot in plots] == expected
    text = json.dumps(drawn)
    assert all(json.dumps(key) in text for key in dashboard_media())
    assert len(drawn) == sum(len(section.panels) for section in DASHBOARD)


@ignores_pydantic
def test_without_an_account_the_error_says_what_to_do(script, monkeypatch, tmp_path, capsys):
    pytest.importorskip("wandb_workspaces")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    code = run_script(script, monkeypatch, "--entity", "me", "--project", "mine")
    assert code == 1
    message = capsys.readouterr().err
    assert "wandb login" in message
    assert "--dry-run" in message
    assert "Traceback" not in message


def test_without_the_extra_the_error_says_what_to_install(script, monkeypatch, tmp_path, capsys):
    for name in ("wandb_workspaces", "wandb_workspaces.workspaces"):
        monkeypatch.setitem(sys.modules, name, None)
    code = run_script(
        script, monkeypatch, *("--entity", "a", "--project", "b"), "--dry-run", str(tmp_path / "x")
    )
    assert code == 1
    assert "pip install -e '.[dashboard]'" in capsys.readouterr().err
