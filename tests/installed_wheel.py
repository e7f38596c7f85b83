"""The wheel as a user has it: built, installed elsewhere, and its command run there without the repository."""

import os
import shutil
import subprocess
import sys
import sysconfig

import pytest
from training.command import REPOSITORY, SHORT

__all__ = ["REPOSITORY", "SHORT"]

SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")


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


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory):
    """The folder that the wheel was installed into."""
    folder = tmp_path_factory.mktemp("installed")
    pip("install", "--target", str(folder), str(wheel), cwd=folder)
    return folder


def run(installed, folder, *words, own=(), python=sys.executable):
    """Runs `papo WORDS` of the installation, with this environment's other packages and without the repository.

    Args:
        installed: where it is.
        folder: to work in.
        words: of the command line.
        own: folders of one's own packages.
        python: runs it.
    """
    paths = [*map(str, own), str(installed), sysconfig.get_path("purelib")]
    # -S and -E: an editable installation of the repository is no way to it.
    code = "import sys; sys.path[:0] = sys.argv.pop(1).split(':'); import papo.commands.command_line as c; sys.exit(c.main())"
    return subprocess.run(
        [python, "-S", "-c", code, ":".join(paths), *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*own, installed]))},
        capture_output=True,
        text=True,
        timeout=240,
    )
