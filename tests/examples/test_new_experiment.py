"""A new experiment is a folder whose test passes and which trains; nothing that is there is overwritten."""

import csv
import json
import subprocess
import sys

import pytest
from PIL import Image
from training.command import REPOSITORY, SHORT, run_command

from papo.commands.command_line import main
from papo.commands.constructors import allow_packages


@pytest.fixture(autouse=True)
def nothing_is_allowed_afterwards(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["papo"])
    yield
    allow_packages([])
    for name in [name for name in sys.modules if name.partition(".")[0] == "probe_one"]:
        del sys.modules[name]


def new(*words):
    return main(["new", "experiment", *words])


def test_its_own_test_passes_and_the_experiment_trains(
    tmp_path, monkeypatch, capsys, forked_python
):
    assert new("probe_one", "--parent", str(tmp_path)) == 0
    folder = tmp_path / "probe_one"
    files = [f.relative_to(folder).as_posix() for f in sorted(folder.rglob("*")) if f.is_file()]
    assert files == [
        *("README.md", "conf/experiment/probe_one.yaml", "conf/objective/probe_one.yaml"),
        *("conf/reward/probe_one.yaml", "probe_one/__init__.py", "probe_one/reward.py"),
        *("probe_one/term.py", "tests/test_probe_one.py"),
    ]
    assert "README.md" in capsys.readouterr().out
    assert not [f for f in files if "NAME" in (folder / f).read_text()]

    paths = f"{folder}:{REPOSITORY}"
    tested = subprocess.run(
        [forked_python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=folder, env={"PYTHONPATH": paths, "PATH": ""}, capture_output=True, text=True,
    )  # fmt: skip
    assert tested.returncode == 0, tested.stdout
    assert "5 passed" in tested.stdout

    monkeypatch.syspath_prepend(str(folder))
    data = tmp_path / "data"
    data.mkdir()
    Image.new("RGB", (60, 40), "red").save(data / "1.png")
    row = {"question": "How many?", "answer": "3", "image": "1.png"}
    (data / "train.jsonl").write_text("\n".join([json.dumps(row)] * 4))
    outcome = run_command(
        *("--config-dir", str(folder / "conf"), "allow=[probe_one]", "+experiment=probe_one"),
        *SHORT,
        *(
            f"data.path={data}",
            "model=tiny_qwen2_5_vl",
            "trainer=cpu",
            f"run_dir={tmp_path / 'run'}",
        ),
        *("rollout.max_response_tokens=4", "training.num_rollouts=1"),
        short=False,
    )
    assert outcome.code == 0, outcome.stderr
    (row,) = csv.DictReader((tmp_path / "run" / "metrics.csv").read_text().splitlines())
    assert float(row["loss/near"]) >= 0
    assert float(row["reward/accuracy"]) == 0


def test_what_is_there_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "probe_one").mkdir()
    (tmp_path / "probe_one" / "mine.txt").write_text("mine")
    assert new("probe_one", "--parent", str(tmp_path)) == 1
    assert "nothing of it is overwritten" in capsys.readouterr().err
    assert [f.name for f in (tmp_path / "probe_one").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "name", ["../out", "My-Parts", "torch", "os", "papo", "hydra", "a b", "1a"]
)
def test_a_name_that_no_package_of_ones_own_can_have_is_refused(tmp_path, capsys, name):
    assert new(name, "--parent", str(tmp_path)) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert list(tmp_path.iterdir()) == []
