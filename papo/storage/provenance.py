"""Where a result comes from: commits, versions, pictures, and whether the settings are the same."""

import hashlib
import platform
import subprocess
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from PIL.Image import Image

_PACKAGES = ("papo", "torch", "transformers", "lightning", "hydra-core", "numpy", "pillow")


def git_commit() -> str | None:
    """The commit of the source tree, "-dirty" appended where it was edited; None outside git."""
    source = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=source, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return (
            f"{commit}-dirty" if git("status", "--porcelain", "--", source.as_posix()) else commit
        )
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a run computes."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def run_facts(*, overrides: list[str], seed: int | None) -> dict[str, Any]:
    """Returns what every run.json says: when, with which overrides and seed, of which code.

    `starts` has an entry for every time the work was begun or continued (`with_start`).
    """
    start = start_facts(overrides)
    return {
        "started": start["started"],
        "overrides": overrides,
        "seed": seed,
        "git_commit": start["git_commit"],
        "versions": start["versions"],
        "starts": [start],
    }


def start_facts(overrides: list[str]) -> dict[str, Any]:
    """Returns when and where a command was started, with which overrides, and of which code."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "overrides": overrides,
        "git_commit": git_commit(),
        "versions": versions(),
        "host": platform.node(),
    }


def with_start(
    run: Mapping[str, Any], start: Mapping[str, Any]
) -> tuple[dict[str, Any], str | None]:
    """Returns what run.json says once the work was started again, and a warning where the code changed.

    Args:
        run: what run.json says; one written before it kept the starts says only the first.
        start: `start_facts` of this one.
    """
    starts = list(run.get("starts") or [{key: run.get(key) for key in start}])
    before = dict(flatten_settings(starts[-1]))
    now = dict(flatten_settings(start))
    changed = [
        f"{key.removeprefix('versions.')} was {before[key]}, is {value}"
        for key, value in now.items()
        if key.split(".")[0] in ("git_commit", "versions")
        and before.get(key) is not None
        and before[key] != value
    ]
    warning = (
        f"warning: {'; '.join(changed)}. What comes now may differ from what an uninterrupted run computes."
        if changed
        else None
    )
    return {**run, "starts": [*starts, dict(start)]}, warning


def require_same_settings(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    *,
    free: Collection[str],
    folder: Path,
    remedy: str,
) -> None:
    """Refuses to continue what was begun with other settings.

    Args:
        old: nested plain values, as they were.
        new: as they are now.
        free: keys that may differ, with all below them.
        folder: where the work is, for the message.
        remedy: what to do, for the message.

    Raises:
        ValueError: they differ; the message names up to five keys.
    """
    before, after = dict(flatten_settings(old)), dict(flatten_settings(new))
    changed = [
        f"{key} was {before.get(key, 'unset')!r}, is {after.get(key, 'unset')!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and key not in free and key.split(".")[0] not in free
    ]
    if changed:
        raise ValueError(
            f"resume=true continues a run with the settings it began with; in {folder} "
            + "; ".join(changed[:5])
            + (f"; and {len(changed) - 5} more" if len(changed) > 5 else "")
            + f". {remedy}"
        )


def image_hash(image: Image) -> str:
    """Returns what names the pixels of a picture, however its file is encoded."""
    pixels = image.convert("RGB")
    return hashlib.sha256(f"{pixels.size}".encode() + pixels.tobytes()).hexdigest()[:32]


def flatten_settings(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields nested settings as dotted keys with their values."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten_settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
