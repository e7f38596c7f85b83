"""What is answered before anything is computed is answered before torch and its like are imported."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "lightning", "wandb", "datasets", "pandas", "matplotlib")

# Runs a script, or the package, as Python does, and says at its end what is there.
LOOKS = """
import atexit, json, runpy, sys
from pathlib import Path
out, script, *arguments = sys.argv[1:]
atexit.register(lambda: Path(out).write_text(json.dumps(sorted(sys.modules))))
sys.argv = [script, *arguments]
sys.path.insert(0, ".")
if script == "papo":
    runpy.run_module("papo", run_name="__main__", alter_sys=True)
else:
    runpy.run_path(script, run_name="__main__")
"""


def started(tmp_path, *words, **variables):
    """Runs a command line; returns what it did and which of the heavy modules it imported."""
    modules = tmp_path / "modules.json"
    done = subprocess.run(
        [sys.executable, "-c", LOOKS, str(modules), *words],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done, sorted({*HEAVY} & {*json.loads(modules.read_text())})


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("papo",), 0, "papo train"),
        (("train.py", "--help"), 0, "+experiment=papo_geo3k"),
        (("papo", "evaluate", "--help"), 0, "checkpoint=RUN_DIR"),
        (("train.py", "objective.gama=1"), 1, "objective.gama"),
        (("evaluate.py", "benchmark=labb"), 1, "lab_quadrilateral"),
        (("analyze.py", "outputs/run"), 1, "runs=[outputs/run]"),
        (("train.py", "--cfg", "job"), 0, "objective:"),
        (("train.py", "+experiment=papo_geo3k", "--cfg", "job"), 0, "hub_id: Qwen"),
        (("train.py", "--cfg", "job", "--resolve"), 0, "lab/warm_start"),
        (("papo", "export"), 2, "checkpoint"),
        (("papo", "report", "--help"), 0, "report.html"),
        (("papo", "check", "grade"), 2, "papo check grader"),
        (("papo", "check", "data", "--help"), 0, "data.path=FOLDER"),
        (("papo", "check", "data", "objective.gama=1"), 1, "objective.gama"),
        (("papo", "check", "grader", "--help"), 0, "--minimum"),
        (("papo", "check", "method", "--help"), 0, "FILE.json"),
        (("papo", "check", "objective", "--help"), 0, "golden cases"),
        (("papo", "check", "objective", "nowhere.json"), 2, "nowhere.json"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_line_is_understood_before_anything_heavy_is_imported(words, code, says, tmp_path):
    done, heavy = started(tmp_path, *words)
    assert done.returncode == code, done.stderr
    assert says in done.stdout + done.stderr
    assert heavy == []


def test_a_shell_completes_a_word_without_them(tmp_path):
    line = "python train.py objective=vp"
    done, heavy = started(
        tmp_path, "train.py", "-sc", "query=bash", COMP_LINE=line, COMP_POINT=str(len(line))
    )
    assert done.stdout.split() == ["objective=vppo"]
    assert heavy == []


def test_a_page_of_a_run_is_written_without_them(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"overrides": [], "seed": 1}))
    (run / "config.yaml").write_text("objective: {gamma: 0.1}\n")
    with (run / "metrics.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["rollout_step", "update_step", "reward/mean"])
        rows.writerows([step, step, step / 5] for step in range(1, 5))
    done, heavy = started(tmp_path, "papo", "report", str(run))
    assert done.returncode == 0, done.stderr
    assert "reward" in (run / "report.html").read_text("utf-8")
    assert heavy == []


@pytest.mark.parametrize(
    "module",
    [
        "papo.analysis.pages.response_pairs",
        "papo.analysis.pages.costs",
        "papo.analysis.pages.dashboard",
        "papo.commands.report_sweep",
    ],
)
def test_the_other_pages_need_none_of_them(module):
    code = f"import sys, {module}; print(*sorted({{*{HEAVY!r}}} & {{*sys.modules}}))"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == []
