"""Fixtures for all rooms. Nothing of papo is imported here: the hook that checks shapes comes first."""

import atexit
import gc
import importlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import contextmanager
from pathlib import Path

import composing_once
import pytest
import shape_checks

# What is imported and collected stays: looking at it again and again is a quarter of the CPU seconds of both.
gc.disable()

# A clone that is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

shape_checks.install()
composing_once.install()

# One thread: two would wait for each other on two cores, and results stay the same to the bit.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")

# Matplotlib keeps the fonts it found in the home folder, where another environment may have left a
# list that is out of date.
os.environ["MPLCONFIGDIR"] = tempfile.mkdtemp(prefix="papo_matplotlib_")
atexit.register(shutil.rmtree, os.environ["MPLCONFIGDIR"], ignore_errors=True)

# What runs remember of data, of these tests alone.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="papo_cache_")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)


def pytest_configure(config):
    """Files of conf/ ask these functions for names, also where a test composes them without a command."""
    importlib.import_module("papo.commands.resolvers")


def pytest_collection_modifyitems(items):
    """Files with long tests come first: one that a worker begins last is waited for by the others."""
    is_long = {one.path: False for one in items}
    for one in items:
        is_long[one.path] |= any(one.get_closest_marker(name) for name in ("slow", "dist"))
    items.sort(key=lambda one: not is_long[one.path])


def pytest_collection_finish():
    """From here on unreachable objects are looked for, among what tests make."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def geometry3k(repository: Path) -> Path:
    """A local copy of Geometry3K beside the repository, where there is one."""
    folder = repository.parent / "shared" / "geometry3k"
    if not folder.is_dir():
        pytest.skip("no local copy of Geometry3K")
    return folder


@pytest.fixture(scope="session")
def forked_python():
    """A command that runs what `python` runs, without importing the libraries anew (forked_python.py)."""
    with forking() as command:
        yield command


@pytest.fixture(scope="session")
def forked_libraries():
    """The same with the libraries alone, for a papo that is installed somewhere."""
    with forking("libraries") as command:
        yield command


@contextmanager
def forking(*words):
    # A socket has a short path.
    with tempfile.TemporaryDirectory(prefix="papo_") as folder:
        socket, command = Path(folder) / "socket", Path(folder) / "python"
        script = Path(__file__).with_name("forked_python.py")
        # Graders (-P) limit their memory and die of signals: those are processes of their own.
        command.write_text(
            f'#!/bin/sh\n[ "$1" = -P ] && exec "{sys.executable}" "$@"\n'
            f'exec "{sys.executable}" -S -E "{script}" start "{socket}" "$0" "$@"\n'
        )
        command.chmod(0o755)
        # Without site-packages' own additions to the path the repository is not on it.
        options, variables = [], dict(os.environ)
        if words:
            options, variables["PYTHONPATH"] = ["-S"], sysconfig.get_path("purelib")
        server = [sys.executable, *options, str(script), "serve", str(socket), *words]
        with subprocess.Popen(
            server, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables
        ) as process:
            assert process.stdout.readline() == "ready\n"
            yield str(command)
            process.stdin.close()
