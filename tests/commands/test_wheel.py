"""`pip install` of a wheel gives everything: the commands, conf/, and a run in whatever folder one works in."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
SHORT = (
    "training.num_rollouts=2",
    "training.prompts_per_rollout=2",
    "training.prompts_per_minibatch=2",
    "training.prompts_per_microbatch=1",
    "rollout.num_responses=2",
    "evaluation.num_problems=2",
    "evaluation.num_responses=1",
)


def pip(*words, cwd):
    quiet = ("--quiet", "--disable-pip-version-check", "--no-deps")
    done = subprocess.run(
        [sys.executable, "-m", "pip", words[0], *quiet, *words[1:]],
        cwd=cwd,
        env={**os.environ, "PIP_NO_INDEX": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built of a copy: a build leaves folders beside what it builds."""
    copy, out = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("papo", "conf"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=ignored)
    for name in SOURCES:
        shutil.copy(REPOSITORY / name, copy / name)
    pip("wheel", "--no-build-isolation", "--wheel-dir", str(out), ".", cwd=copy)
    [file] = out.glob("papo-*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder that the wheel was installed into."""
    folder = tmp_path_factory.mktemp("installed")
    pip("install", "--target", str(folder), str(wheel), cwd=folder)
    return folder


def run(installed, folder, *words):
    """Runs `papo WORDS` of the installation, with this environment's other packages and without the repository."""
    paths = [str(installed), sysconfig.get_path("purelib")]
    # -S and -E: an editable installation of the repository is no way to it.
    code = "import sys; sys.path[:0] = sys.argv.pop(1).split(':'); import papo.commands.command_line as c; sys.exit(c.main())"
    return subprocess.run(
        [sys.executable, "-S", "-c", code, ":".join(paths), *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_a_wheel_holds_the_configuration_and_the_console_command(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [points] = [name for name in names if name.endswith("entry_points.txt")]
        assert "papo = papo.commands.command_line:main" in archive.read(points).decode()
    inside = {name.removeprefix("papo/conf/") for name in names if name.startswith("papo/conf/")}
    files = {
        path.relative_to(REPOSITORY / "conf").as_posix()
        for path in (REPOSITORY / "conf").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert inside == files
    assert not any(name.startswith(("tests/", "scripts/", "conf/")) for name in names)


def test_an_installed_wheel_trains_and_reports_where_one_works(installed, tmp_path):
    trained = run(installed, tmp_path, "train", *SHORT)
    assert trained.returncode == 0, trained.stderr
    assert str(REPOSITORY) not in trained.stdout + trained.stderr
    [folder] = (tmp_path / "outputs" / "lab").iterdir()
    assert json.loads((folder / "result.json").read_text())["status"] == "finished"
    reported = run(installed, tmp_path, "report", str(folder))
    assert reported.returncode == 0, reported.stderr
    assert (folder / "report.html").is_file()


def test_an_installed_wheel_says_which_file_it_reads(installed, tmp_path):
    """Its own conf/, wherever it stands."""
    code = "from papo.commands.constructors import CONF; print(CONF)"
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(found.stdout.strip()) == installed / "papo" / "conf"
