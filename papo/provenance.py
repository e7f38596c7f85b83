"""Where a result comes from: the commit, the versions, and whether the settings are the same."""

import platform
import subprocess
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("papo", "torch", "transformers", "lightning", "hydra-core", "numpy", "pillow")


def git_commit() -> str | None:
    """The commit of the source tree, "-dirty" appended where it was edited; None outside git."""
    source = Path(__file__).parent

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
    """Returns what every run.json says: when, with which overrides and seed, of which code."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "overrides": overrides,
        "seed": seed,
        "git_commit": git_commit(),
        "versions": versions(),
    }


def require_same_settings(
    old: Mapping[str, Any], new: Mapping[str, Any], *, free: Collection[str], folder: Path
) -> None:
    """Refuses to continue what was begun with other settings.

    Args:
        old: nested plain values, as they were.
        new: as they are now.
        free: top-level keys that may differ.
        folder: where the work is, for the message.

    Raises:
        ValueError: they differ; the message names up to five keys.
    """
    before, after = dict(flatten_settings(old)), dict(flatten_settings(new))
    changed = [
        f"{key} was {before.get(key, 'unset')!r}, is {after.get(key, 'unset')!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and key.split(".")[0] not in free
    ]
    if changed:
        raise ValueError(
            f"resume=true continues a run with the settings it began with; in {folder} "
            + "; ".join(changed[:5])
            + (f"; and {len(changed) - 5} more" if len(changed) > 5 else "")
            + ". Repeat the first command, or start a new run in another run_dir."
        )


def flatten_settings(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields nested settings as dotted keys with their values."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten_settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
