"""Collects what the cells import, as wheels for a machine that has Python 3.12 and torch and no package index."""

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from benchmarks.measure import REPOSITORY

# Imported by train.py and the cells, and by the tests that need a device. What these need follows from their metadata.
ROOTS = (
    *("transformers", "lightning", "hydra-core", "omegaconf", "jaxtyping"),
    *("numpy", "scipy", "pillow", "rich", "beartype", "pytest", "pytest-timeout"),
)
TARGET = {"python_version": "3.12", "python_full_version": "3.12.0", "sys_platform": "linux"}
PLATFORMS = tuple(f"manylinux_2_{minor}_x86_64" for minor in (39, 34, 31, 28, 27, 24, 17, 12, 5))
LOCK = REPOSITORY / "constraints" / "locked.txt"


def wanted(present: Iterable[str] = (), *, roots: Iterable[str] = ROOTS) -> list[str]:
    """The pinned requirements of the cells, without torch and what comes with it.

    Args:
        present: what the machine has, as `pip list --format=freeze` says it. A version that papo or one of these
            packages does not take counts as missing.
        roots: names of packages.
    """
    pins = dict(_pins(LOCK.read_text("utf-8").splitlines()))
    needed = _closure(roots)
    limits = _limits({"papo", *needed})
    there = {
        name
        for name, version in _pins(present)
        if all(limit.contains(version, prereleases=True) for limit in limits.get(name, ()))
    }
    missing = sorted(needed - _closure(["torch"]) - there)
    return [f"{name}=={pins[name]}" for name in missing if name in pins]


def collect(folder: Path, requirements: Iterable[str]) -> list[Path]:
    """Downloads wheels; what is published as source alone is built here.

    Raises:
        RuntimeError: pip finds no wheel and cannot build one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for requirement in requirements:
        downloaded = _pip(
            *("download", "--only-binary=:all:", "--python-version", "3.12"),
            *("--implementation", "cp", "--dest", str(folder)),
            *(argument for name in PLATFORMS for argument in ("--platform", name)),
            requirement,
        )
        if downloaded.returncode:
            built = _pip("wheel", "--wheel-dir", str(folder), requirement)
            if built.returncode:
                raise RuntimeError(f"no wheel of {requirement}: {built.stderr.strip()[-500:]}")
    return sorted(folder.glob("*.whl"))


def _pip(command: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pip", command, "--quiet", "--no-deps", *arguments],
        capture_output=True,
        text=True,
    )


def _pins(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Names and versions of the lines that pin one for the target."""
    for line in lines:
        if not re.match(r"[\w.-]+==", line.strip()):
            continue
        pin = Requirement(line.strip())
        if pin.marker is None or pin.marker.evaluate(TARGET):
            yield canonicalize_name(pin.name), str(pin.specifier).removeprefix("==")


def _closure(roots: Iterable[str]) -> set[str]:
    """The packages and all that they need on the target, by the metadata of what is installed here."""
    found: set[str] = set()
    waiting = [canonicalize_name(name) for name in roots]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [canonicalize_name(one.name) for one in _needs(name)]
    return found


def _limits(names: Iterable[str]) -> dict[str, list[SpecifierSet]]:
    """By package, which versions the others take."""
    found: dict[str, list[SpecifierSet]] = {}
    for name in names:
        for need in _needs(name):
            found.setdefault(canonicalize_name(need.name), []).append(need.specifier)
    return found


def _needs(name: str) -> Iterator[Requirement]:
    """What a package needs without its extras; nothing where it is not installed here."""
    try:
        lines = requires(name) or []
    except PackageNotFoundError:
        return
    for requirement in map(Requirement, lines):
        marker = requirement.marker
        if marker is None or marker.evaluate({**TARGET, "extra": ""}):
            yield requirement
