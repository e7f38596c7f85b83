"""The section of the run page about the terms, from the columns and the faults of a run."""

import json
import math

import pytest
from analysis.pages.test_run_page import HOSTILE, write_run

from papo.analysis.pages.run import build_run_page


def every_other(value):
    """Measured before every second update alone."""
    return lambda step: value(step) if step % 2 else math.nan


def columns(later_part):
    """A surrogate, and a perception KL whose part in the vision tower changes half way."""
    return {
        "reward/mean": lambda step: step / 20,
        **{
            f"gradient/{name}/{measure}": every_other(value)
            for name, norm in (("surrogate", 0.4), ("perception_kl", 0.2))
            for measure, value in {
                "norm": lambda step, norm=norm: norm,
                "norm_vision": lambda step, norm=norm: norm * (0.6 if step < 8 else later_part),
                "cosine": lambda step: 0.25,
                "clamped": lambda step: 0.0,
                "top_share": lambda step: 0.3,
            }.items()
        },
    }


def page_of(folder, later_part=0.6):
    write_run(folder, metrics=columns(later_part), records=[])
    return build_run_page(folder)


def test_a_sound_run_has_charts_and_numbers_and_no_notice(tmp_path):
    html = page_of(tmp_path / "run")
    assert "What each term does" in html
    assert "Nothing speaks against a term." in html
    for chart in ("Norm of the gradient", "Vision tower", "Share of the pull"):
        assert chart in html
    assert "perception_kl" in html


def test_a_verdict_is_told_before_the_charts(tmp_path):
    html = page_of(tmp_path / "run", later_part=0.1)
    assert "Nothing speaks against a term." not in html
    said = html.index(
        "perception_kl: it leaves the vision tower, whose part of its norm fell from 0.6 to 0.1"
    )
    assert said < html.index("Norm of the gradient")


def test_what_the_run_found_is_told_as_text_and_a_damaged_line_is_said(tmp_path):
    folder = tmp_path / "run"
    page_of(folder)
    fault = {"rollout_step": 1, "key": "masking", "says": HOSTILE}
    (folder / "faults.jsonl").write_text(json.dumps(fault) + '\n{"key": "mask')
    html = build_run_page(folder)
    assert "masking: &lt;/script&gt;" in html
    assert HOSTILE not in html
    assert "Damaged lines left out of faults.jsonl: 1." in html


@pytest.mark.parametrize("metrics", [None, {"gradient/own/norm": lambda step: math.nan}])
def test_a_run_that_measured_nothing_has_no_such_section(tmp_path, metrics):
    folder = tmp_path / "run"
    write_run(folder, metrics=metrics)
    assert "What each term does" not in build_run_page(folder)
