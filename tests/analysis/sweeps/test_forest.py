import csv
import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from papo.analysis.sweeps.forest import PUBLISHED, Panel, forest_plot, panel_of, read_panel
from papo.reporting.charts import Dot, as_file


def panel(title="few answers", **effects):
    return Panel(title=title, baseline="grpo", effects=effects)


def rows_of(chart):
    """Arm -> its height, from the names and from the dots."""
    root = ElementTree.fromstring(f"<svg>{chart.drawing}</svg>")
    names = {
        one.text: float(one.get("y")) - 4 for one in root.iter("text") if one.get("class") == "name"
    }
    dots = {
        one.find("title").text.split()[0]: float(one.find("svg").get("y"))
        for one in root.iter("g")
        if one.get("class") == "mark"
    }
    return names, dots


def test_every_arm_has_one_row_in_all_panels_sorted_by_the_first():
    first, second = forest_plot(
        [
            panel(weak=Dot(value=1.0), strong=Dot(value=5.0)),
            panel("all answers", weak=Dot(value=9.0), other=Dot(value=2.0)),
        ]
    )
    names, dots = rows_of(first)
    assert sorted(names, key=names.get) == ["strong", "other", "weak"]
    assert {**dots, "other": names["other"]} == names
    assert rows_of(second) == (names, {arm: names[arm] for arm in ("weak", "other")})


def test_an_interval_over_few_starts_does_not_flatten_the_rest():
    [chart] = forest_plot([panel(a=Dot(value=2.0, narrow=(1.0, 3.0), wide=(-500.0, 500.0)))])
    [(low, high)] = re.findall(r'class="wide" x1="([\d.]+)%" x2="([\d.]+)%"', chart.drawing)
    assert (low, high) == ("0", "100")


def test_a_difference_of_nothing_is_a_difference():
    row = {"arm": "a", "measure": "m", "baseline": "grpo", "difference": 0.0}
    found = panel_of([row, {**row, "arm": "grpo", "difference": ""}], measure="m", title="t")
    assert found == Panel(title="t", baseline="grpo", effects={"a": Dot(value=0.0)})


@pytest.mark.parametrize("count", [0, 5])
def test_a_plot_that_nobody_can_read_is_refused(count):
    with pytest.raises(ValueError, match="1 to 4 panels"):
        forest_plot([panel(a=Dot(value=1.0))] * count)


@pytest.mark.parametrize("runs", ["num_seeds", "num_runs"])
def test_collapsed_runs_are_marked_in_their_row(runs):
    row = {"arm": "a", "measure": "m", "baseline": "grpo", "difference": 0.1, runs: 8}
    collapsed = {**row, "measure": "collapsed", "mean": 0.25, "difference": ""}
    sound = {**collapsed, "arm": "b", "mean": 0.0}
    found = panel_of([row, {**row, "arm": "b"}, collapsed, sound], measure="m", title="t")
    [chart] = forest_plot([found])
    assert chart.drawing.count("collapsed") == 1
    assert "a +10.0 (2 of 8 collapsed)" in chart.spoken


def test_published_differences_stand_in_the_rows_of_the_first_panel():
    panels = [panel(a=Dot(value=1.0), b=Dot(value=2.0)), panel("other", a=Dot(value=3.0))]
    first, second = forest_plot(panels, published={"a": 4.4})
    assert f"a difference, 95 % interval +1.0, {PUBLISHED} +4.4" in first.spoken
    assert [name for _, name in first.legend][1] == PUBLISHED
    assert not second.legend
    assert first.height == second.height, "rows stay level"


def write(path, *rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_names_of_arms_stay_text(tmp_path):
    plot = as_file(forest_plot([panel("<b>", **{"<script>": Dot(value=1.0)})]))
    root = ElementTree.fromstring(plot)
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
