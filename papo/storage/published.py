"""The numbers of the paper, so that a table can show them beside what was measured."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml


@cache
def published_results() -> dict[str, Any]:
    """Returns papo/storage/published.yaml: avg@8 accuracies in per cent (arXiv:2507.06448v5).

    Keys: `main` (Table 1, with its `columns`), `relative_gains` (of its PAPO rows over their
    `baseline`, per cent), `ablations` (rows of [general, vision, overall]),
    `error_analysis`, `cost_per_step_seconds`. None where the paper prints no number.
    """
    text = Path(__file__).with_name("published.yaml").read_text("utf-8")
    results: dict[str, Any] = yaml.safe_load(text)
    return results
