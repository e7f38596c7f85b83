"""Several audits of what a policy grounds side by side: the numbers of each policy, a table per benchmark."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from papo.evaluation.grounding_measures import COUNTS, MEASURES, measured_text
from papo.reporting.markdown_text import markdown_table
from papo.storage.files import read_object
from papo.storage.provenance import flatten_settings

_COMPARED = ("benchmark", "audit", "views", "rollout", "evaluation", "seed")
"""Groups and keys of the configuration that audits of several policies have in common."""


def read_audit(folder: Path) -> list[dict[str, Any]]:
    """Returns the rows of an audit.

    Raises:
        FileNotFoundError: it is no finished audit.
    """
    file = folder / "grounding.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"{folder} holds no finished audit (grounding.json); write one with evaluate.py audit=grounding"
        )
    found: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))
    return found


def audit_differences(folders: Mapping[str, Path]) -> list[str]:
    """Returns the settings in which audits differ from the first of them."""
    settings = {name: _settings(folder) for name, folder in folders.items()}
    first, *others = settings
    return [
        f"{first}, {name}: {key} is {settings[first].get(key)} and {settings[name].get(key)}"
        for name in others
        for key in sorted(settings[first].keys() | settings[name].keys())
        if settings[first].get(key) != settings[name].get(key)
    ]


def _settings(folder: Path) -> dict[str, Any]:
    config = read_object(
        folder / "config.json", remedy="It says what was asked of the audit: restore it."
    )
    return dict(flatten_settings({key: config.get(key) for key in _COMPARED}))


def audits_markdown(audits: Mapping[str, list[dict[str, Any]]]) -> str:
    """Returns a table per benchmark: a row per number, a column per audit."""
    return "\n".join(_tables(audits))


def _tables(audits: Mapping[str, list[dict[str, Any]]]) -> Iterator[str]:
    benchmarks = {row["benchmark"]: row["label"] for rows in audits.values() for row in rows}
    for benchmark, label in benchmarks.items():
        own = {
            name: next((row for row in rows if row["benchmark"] == benchmark), {})
            for name, rows in audits.items()
        }
        lines = [
            *(
                [f"{one.label} (`{one.name}`)", *(measured_text(one, row) for row in own.values())]
                for one in MEASURES
            ),
            *(
                [f"`{name}`", *(str(row.get(name) or "") for row in own.values())]
                for name in COUNTS
            ),
        ]
        yield f"## {label}"
        yield ""
        yield markdown_table(["number", *own], [line for line in lines if any(line[1:])], texts=1)
        yield ""
