"""What `make` installs: every dependency is locked within its range, and both ends of it are listed."""

import re
import shutil
import subprocess
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from training.command import REPOSITORY

PYTHONS = ("3.11", "3.12", "3.13")


def normalized(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def dependencies():
    """Every requirement of papo and of its extras, papo's own extras aside."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    texts = [*project["dependencies"], *(text for extra in extras for text in extra)]
    return [r for r in map(Requirement, texts) if r.name != "papo"]


def constraints(name, python):
    """Version by name, as pip reads the file under a Python on Linux."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    found = {}
    for line in (REPOSITORY / "constraints" / f"{name}.txt").read_text().splitlines():
        if not (text := line.partition("#")[0].strip()):
            continue
        requirement = Requirement(text)
        [specifier] = requirement.specifier
        assert specifier.operator == "==", text
        if requirement.marker is None or requirement.marker.evaluate(environment):
            assert normalized(requirement.name) not in found, f"two versions: {text}"
            found[normalized(requirement.name)] = specifier.version
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_every_dependency_is_locked_within_its_range(python):
    locked = constraints("locked", python) | constraints("torch", python)
    for dependency in dependencies():
        assert dependency.specifier.contains(locked[normalized(dependency.name)]), dependency


def test_the_oldest_versions_are_the_lower_bounds():
    oldest = constraints("oldest", "3.11")
    for dependency in dependencies():
        [bound] = [s.version for s in dependency.specifier if s.operator in (">=", "==")]
        # 1.2 stands for 1.2.0
        assert re.fullmatch(rf"{re.escape(bound)}(\.0)*", oldest[normalized(dependency.name)])


def test_torch_is_locked_apart_so_that_a_build_of_ones_own_stays():
    locked = constraints("locked", "3.11")
    assert not [n for n in locked if n in ("torch", "triton") or n.startswith(("nvidia", "cuda"))]
    assert set(constraints("torch", "3.11")) == {"torch"}


def test_constraints_name_versions_and_no_addresses():
    for file in (REPOSITORY / "constraints").iterdir():
        assert not re.search(r"://|@|--", file.read_text()), file.name


def commands(job):
    """The shell lines of a job, once for every combination that its matrix writes into them."""
    matrix = job.get("strategy", {}).get("matrix", {})
    for step in job["steps"]:
        lines = {step.get("run", "")}
        for name, values in matrix.items():
            place = f"${{{{ matrix.{name} }}}}"
            lines = {line.replace(place, value) for line in lines for value in values}
        yield from lines


def test_workflows_run_targets_that_make_has():
    targets = set(re.findall(r"(?m)^([a-z-]+):.*## ", (REPOSITORY / "Makefile").read_text()))
    files = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
    jobs = [job for file in files for job in yaml.safe_load(file.read_text())["jobs"].values()]
    called = {
        target
        for job in jobs
        for line in commands(job)
        for target in re.findall(r"make (\S+)", line)
    }
    assert called == {"check", "docs", "test", "test-newest", "test-oldest"}
    assert called <= targets


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
@pytest.mark.parametrize("has_torch", [True, False])
def test_a_torch_that_is_there_is_left_alone_and_the_backend_is_locked(tmp_path, has_torch):
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    # Stands for the environment's Python: says whether there is a torch, and writes down what is installed.
    python.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] && exit {0 if has_torch else 1}\necho "$@" >> {tmp_path}/calls\n'
    )
    python.chmod(0o755)
    subprocess.run(
        ["make", "--silent", "setup", f"VENV={tmp_path}"], cwd=REPOSITORY, check=True, timeout=60
    )
    backend, papo = (tmp_path / "calls").read_text().splitlines()
    assert backend.endswith("setuptools")
    assert "--no-build-isolation --editable .[dev]" in papo
    for call in (backend, papo):
        assert "--constraint constraints/locked.txt" in call
        assert ("--constraint constraints/torch.txt" in call) is not has_torch
