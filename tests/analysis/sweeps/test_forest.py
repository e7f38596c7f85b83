import csv
import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from papo.analysis.sweeps.forest import Effect, Panel, as_file, forest_plot, panel_of, read_panel


def panel(title="few answers", **effects):
    return Panel(title=title, baseline="grpo", effects=effects)


def effect(value, narrow=None, wide=None):
    return Effect(value=value, narrow=narrow, wide=wide)


def rows_of(plot):
    """Arm -> its height, from the names and from the dots."""
    names = {
        name: float(y) - 4
        for y, name in re.findall(r'<text x="180" y="([\d.]+)"[^>]*>([^<]+)</text>', plot)
    }
    dots = {name: float(y) for y, name in re.findall(r'cy="([\d.]+)"[^>]*><title>(\S+) ', plot)}
    return names, dots


def test_every_arm_has_one_row_in_all_columns_sorted_by_the_first():
    names, dots = rows_of(
        forest_plot(
            [
                panel(weak=effect(1.0), strong=effect(5.0)),
                panel("all answers", weak=effect(9.0), other=effect(2.0)),
            ]
        )
    )
    assert sorted(names, key=names.get) == ["strong", "other", "weak"]
    assert names == dots


def test_lines_reach_from_end_to_end_of_their_intervals():
    plot = forest_plot([panel(a=effect(2.0, narrow=(0.0, 4.0), wide=(1.0, 3.0)))])
    ends = {
        name: (float(x1), float(x2))
        for name, x1, x2 in re.findall(
            r'<line class="(narrow|wide)"[^>]* x1="([\d.]+)" x2="([\d.]+)"', plot
        )
    }
    # The column is 300 wide from 190 on, and reaches from -0.2 to 4.2.
    assert ends["narrow"] == pytest.approx((190 + 300 * 0.2 / 4.4, 190 + 300 * 4.2 / 4.4), abs=0.1)
    assert ends["wide"] == pytest.approx((190 + 300 * 1.2 / 4.4, 190 + 300 * 3.2 / 4.4), abs=0.1)


def test_an_interval_over_few_starts_does_not_flatten_the_rest():
    plot = forest_plot([panel(a=effect(2.0, narrow=(1.0, 3.0), wide=(-500.0, 500.0)))])
    [(x1, x2)] = re.findall(r'class="wide"[^>]* x1="([\d.]+)" x2="([\d.]+)"', plot)
    assert (float(x1), float(x2)) == (190.0, 490.0)


def test_a_difference_of_nothing_is_a_difference():
    row = {"arm": "a", "measure": "m", "baseline": "grpo", "difference": 0.0}
    found = panel_of([row, {**row, "arm": "grpo", "difference": ""}], measure="m", title="t")
    assert found == Panel(
        title="t", baseline="grpo", effects={"a": Effect(value=0.0, narrow=None, wide=None)}
    )


@pytest.mark.parametrize("count", [0, 5])
def test_a_plot_that_nobody_can_read_is_refused(count):
    with pytest.raises(ValueError, match="1 to 4 panels"):
        forest_plot([panel(a=effect(1.0))] * count)


def write(path, *rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_names_of_arms_stay_text(tmp_path):
    plot = forest_plot([panel("<b>", **{"<script>": effect(1.0)})])
    root = ElementTree.fromstring(as_file(plot))
    assert {"<script>", "<b>"} <= {text for each in root.iter() if (text := each.text)}
    assert "<script>" not in plot


def test_a_figure_is_drawn_from_reports_of_one_and_of_several_starts(tmp_path):
    common = {"arm": "papo_g", "measure": "accuracy_curve", "baseline": "grpo", "difference": 0.1}
    for name in ("one", "several"):
        (tmp_path / name).mkdir()
    write(
        tmp_path / "one" / "report.csv",
        {**common, "difference_low": 0.05, "difference_high": 0.15},
    )
    write(
        tmp_path / "several" / "pooled.csv",
        {
            **common,
            **{"within_starts_low": 0.08, "within_starts_high": 0.12},
            **{"over_starts_low": -0.1, "over_starts_high": 0.3},
        },
    )
    reports = [str(tmp_path / name) for name in ("one", "several")]
    done = subprocess.run(
        [sys.executable, "scripts/report_forest.py", *reports, "--output", str(tmp_path / "f.svg")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    root = ElementTree.parse(tmp_path / "f.svg").getroot()
    assert root.get("aria-label") == (
        "one, points more than grpo: papo_g +10.0 [+5.0, +15.0]; several, points more than grpo: "
        "papo_g +10.0 [+8.0, +12.0]"
    )


def test_a_measure_that_no_report_has_is_named_with_those_it_has(tmp_path):
    write(
        tmp_path / "report.csv",
        {"arm": "a", "measure": "accuracy_curve", "baseline": "grpo", "difference": 0.1},
    )
    with pytest.raises(ValueError, match="'loss'; it has them of accuracy_curve"):
        read_panel(tmp_path / "report.csv", measure="loss", title="t")
