import math
import re
from xml.etree import ElementTree

import pytest

from papo.reporting.charts import (
    Axis,
    Dot,
    Limit,
    Row,
    Series,
    area_chart,
    as_file,
    bar_chart,
    dot_chart,
    line_chart,
)
from papo.reporting.html import Markup, grid, page


def drawing(chart):
    """The elements of a chart, by tag, without name spaces."""
    return ElementTree.fromstring(f"<svg>{chart.drawing}</svg>")


def points_of(chart, shape):
    return [
        [tuple(map(float, point.split(","))) for point in one.get("points").split()]
        for one in drawing(chart).iter(shape)
    ]


def series(*values, name="a", **more):
    return Series(name=name, values=values, **more)


def texts_of(chart, kind):
    return [one.text for one in drawing(chart).iter("text") if one.get("class") == kind]


def test_a_line_goes_through_its_values():
    # The lines' own drawing is 1000 wide and 150 high: 0 lies at the bottom, the highest at the top.
    [points] = points_of(line_chart("t", [1, 2, 3], [series(0.0, 1.0, 0.5)]), "polyline")
    assert points == [(0.0, 150.0), (500.0, 0.0), (1000.0, 75.0)]


def test_a_line_breaks_where_a_value_is_not_finite():
    chart = line_chart("t", [1, 2, 3, 4, 5], [series(0.0, 1.0, math.nan, 1.0, math.inf)])
    assert len(points_of(chart, "polyline")) == 1
    assert len(list(drawing(chart).iter("circle"))) == 1, "a single value between gaps is a dot"
    assert "2 values missing or not finite" in chart.spoken


def test_a_band_goes_round_the_ends_of_the_intervals():
    line = series(0.5, 0.5, band=([0.25, math.nan], [0.75, 1.0]))
    assert points_of(line_chart("t", [1, 2], [line], top=1.0), "polygon") == [
        [(0.0, 37.5), (0.0, 112.5)]
    ], "where an end is unknown there is no band"
    whole = series(0.5, 0.5, band=([0.25, 0.0], [0.75, 1.0]))
    [outline] = points_of(line_chart("t", [1, 2], [whole]), "polygon")
    assert outline == [(0.0, 37.5), (1000.0, 0.0), (1000.0, 150.0), (0.0, 112.5)]


def test_areas_lie_on_one_another_and_fill_what_they_add_up_to():
    chart = area_chart("t", [1, 2], [series(0.25, 0.5, name="low"), series(0.75, 0.5, name="up")])
    low, up = points_of(chart, "polygon")
    assert low == [(0.0, 112.5), (1000.0, 75.0), (1000.0, 150.0), (0.0, 150.0)]
    assert up == [(0.0, 0.0), (1000.0, 0.0), (1000.0, 75.0), (0.0, 112.5)]
    assert [name for _, name in chart.legend] == ["up", "low"], "the legend lists from the top"


def test_a_long_curve_keeps_its_spikes_and_few_points():
    values = [0.0] * 20_000
    values[12_345] = 7.0
    chart = line_chart("t", range(20_000), [series(*values)])
    [points] = points_of(chart, "polyline")
    assert len(points) <= 300
    assert min(y for _, y in points) == 0.0
    assert len(chart.drawing) < 40_000


def test_a_spike_does_not_flatten_the_rest():
    values = [0.05, 0.1, 0.2, 2_000.0, 0.1, 0.2]
    chart = line_chart("variance", range(6), [series(*values)], scale="auto")
    assert chart.note == "log axis"
    [points] = points_of(chart, "polyline")
    heights = [y for _, y in points]
    assert heights[3] == pytest.approx(0.0, abs=1.0)
    assert heights[0] - heights[2] > 15, "four times as much is seen beside 2,000"
    # Without a spike the axis stays linear, and zero is on it.
    assert line_chart("t", range(3), [series(1.0, 2.0, 3.0)], scale="auto").note == ""


def test_a_log_axis_says_what_lies_below_it():
    chart = line_chart("t", range(3), [series(0.0, 0.01, 10.0)], scale="log")
    assert chart.note == "log axis; what is below 0.01 lies at the lower end"
    [points] = points_of(chart, "polyline")
    assert [y for _, y in points] == [150.0, 150.0, 0.0]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.01, 1.0, [0.01, 0.1, 1.0]),
        (2.0, 50.0, [2.0, 5.0, 10.0, 20.0, 50.0]),
        (1e-3, 1e6, [1e-3, 1e-1, 1e1, 1e3, 1e5]),
    ],
)
def test_ticks_of_a_log_axis_are_round(low, high, expected):
    assert Axis(low=low, high=high, is_log=True).ticks() == pytest.approx(expected)


def test_a_limit_is_on_the_axis_and_what_is_beyond_is_shaded():
    chart = line_chart(
        "t", [1, 2], [series(0.01, 0.1)], scale="log", limit=Limit(value=1.0, text="too much")
    )
    [line] = [one for one in drawing(chart).iter("line") if one.get("class") == "limit"]
    assert line.get("y1") == "0.0"
    assert "dashed: too much" in chart.note


def test_under_a_pointer_stand_the_values_in_the_colours_of_their_lines():
    lines = [series(0.5, 0.25, name="a"), series(1.0, 0.75, name="b", colour=4)]
    chart = line_chart("t", [1, 2], lines, is_percent=True)
    first, second = [one for one in drawing(chart).iter("g") if one.get("class") == "at"]
    assert "".join(second.find("text").itertext()) == "rollout 2: 25 % 75 %"
    assert "series-4" in first.findall("text/tspan")[1].get("style")


@pytest.mark.parametrize("scale", ["linear", "log", "auto"])
@pytest.mark.parametrize(
    "values",
    [
        (0.0,),
        (math.nan,),
        (5.0, 5.0),
        (-3.0, -2.0),
        (1e308, -1e308),
        (5e-324, 0.0),
        (5e-324, 1e308),
        (math.inf, 1.0),
    ],
)
def test_odd_values_still_make_a_chart_of_finite_coordinates(values, scale):
    steps = range(1, len(values) + 1)
    chart = line_chart("t", steps, [series(*values)], scale=scale).drawing
    chart += area_chart("t", steps, [series(*(abs(v) for v in values))]).drawing
    numbers = re.findall(r' (?:points|cx|cy|x\d?|y\d?)="([^"]*)"', chart)
    assert not any("nan" in number or "inf" in number for number in numbers)


def test_names_are_escaped_and_lines_differ_in_more_than_colour():
    chart = line_chart("<t>", [1, 2], [series(1.0, 2.0, name="<b>"), series(2.0, 1.0, name="c")])
    shown = Markup(chart)
    assert "<t>" not in shown
    assert "<b>" not in shown
    first, second = re.findall(r"<polyline[^>]*stroke-dasharray:([^\"]*)\"", shown)
    assert first != second


def test_a_chart_says_its_ends_and_extremes():
    chart = line_chart("Reward", [1, 2, 3], [series(0.5, 0.125, 1.0, name="mean")])
    assert 'aria-label="Reward: mean from 0.5 to 1, lowest 0.125, highest 1"' in Markup(chart)


def row(name, *dots, **more):
    return Row(name=name, dots=dots, **more)


def test_dots_and_their_intervals_lie_where_their_values_are():
    rows = [row("one", Dot(value=25.0, narrow=(0.0, 50.0), wide=(-90.0, 75.0)))]
    chart = dot_chart("t", rows, ["x"], along="%", reach=(0, 100))
    lines = {
        one.get("class"): (one.get("x1"), one.get("x2"))
        for one in drawing(chart).iter("line")
        if one.get("class") in ("narrow", "wide")
    }
    assert lines == {"narrow": ("0%", "50%"), "wide": ("0%", "75%")}, "cut at the edge"
    assert "one 25 [0, 50]" in chart.spoken


def test_dots_of_several_series_have_lines_and_shapes_of_their_own():
    rows = [row("one", Dot(value=1.0), Dot(value=2.0)), row("two", None, Dot(value=3.0))]
    chart = dot_chart("t", rows, ["before", "after"], along="x")
    marks = [one for one in drawing(chart).iter("g") if one.get("class") == "mark"]
    assert [one.find("title").text for one in marks] == [
        "one before 1",
        "one after 2",
        "two after 3",
    ]
    places = [float(one.find("svg").get("y")) for one in marks]
    assert places == sorted(set(places))
    assert marks[0].find("svg/circle") is not None
    assert marks[1].find("svg/path") is not None


def test_a_row_that_warns_says_so_in_the_drawing_and_aloud():
    chart = dot_chart("t", [row("a", Dot(value=1.0), mark="2 of 8 collapsed")], ["x"], along="x")
    assert texts_of(chart, "warns") == ["2 of 8 collapsed"]
    assert "(2 of 8 collapsed)" in chart.spoken


def test_a_value_beyond_the_axis_is_an_arrow_at_its_edge():
    chart = dot_chart("t", [row("a", Dot(value=30.0))], ["x"], along="x", reach=(0, 2))
    [mark] = [one for one in drawing(chart).iter("g") if one.get("class") == "mark"]
    assert mark.find("svg").get("x") == "100%"
    assert mark.find("svg/path") is not None
    assert mark.find("title").text == "a 30"


def test_segments_of_a_bar_follow_one_another_and_unused_ones_have_no_legend():
    rows = [("was wrong", [6, 0, 2]), ("was right", [0, 0, 4])]
    chart = bar_chart("t", rows, [("right", 3), ("never", 1), ("wrong", 2)], along="slots")
    bars = [(one.get("x"), one.get("width")) for one in drawing(chart).iter("rect")]
    assert bars == [("0%", "75%"), ("75%", "25%"), ("0%", "50%")]
    assert texts_of(chart, "inside") == ["6", "2", "4"]
    assert [name for _, name in chart.legend] == ["right", "wrong"]


def test_a_chart_alone_is_a_file_with_colours_of_its_own():
    chart = dot_chart("<t>", [row("<script>", Dot(value=1.0))], ["x"], along="x")
    root = ElementTree.fromstring(as_file([chart, chart]))
    assert "<script>" in {text for one in root.iter() if (text := one.text)}
    style = root.find("{http://www.w3.org/2000/svg}style").text
    assert "prefers-color-scheme: dark" in style
    assert "--series-1" in style


def test_charts_of_a_file_stand_two_in_a_row():
    chart = dot_chart("t", [row("a", Dot(value=1.0))], ["x"], along="x")
    root = ElementTree.fromstring(as_file([chart] * 3, width=300))
    parts = root.findall("{http://www.w3.org/2000/svg}svg")
    height = int(parts[0].get("height"))
    places = [(int(one.get("x")), int(one.get("y"))) for one in parts]
    assert places == [(0, 0), (316, 0), (0, height + 16)]
    assert (root.get("width"), root.get("height")) == ("616", str(2 * height + 16))


def test_a_file_is_read_as_a_page_is(browser, tmp_path):
    """Its titles and legends have the font and the colours of the drawing, and nothing is cut off."""
    rows = [row("a name", Dot(value=1.0), Dot(value=2.0))]
    charts = [
        dot_chart("dots " * 30, rows, ["one", "two"], along="x"),
        line_chart("l", [1, 2], [series(1e5, 2e5)]),
    ]
    file = tmp_path / "chart.svg"
    file.write_text(as_file(charts))
    tab = browser.open(file)
    texts = tab.run("""[...document.querySelectorAll('text')].map(text => {
      const box = text.getBoundingClientRect(), style = getComputedStyle(text);
      return [text.textContent, style.fontSize, style.fill, box.left, box.right];
    })""")
    for text, size, fill, left, right in texts:
        assert size == "12px", text
        assert fill != "rgb(0, 0, 0)", text
        assert 0 <= left <= right <= 2 * 436, text
    assert tab.complaints() == []


def test_charts_keep_the_size_of_their_text_and_lie_within_a_phone(browser, tmp_path):
    line = series(*(k / 60 for k in range(60)), name="a", band=([0.0] * 60, [1.0] * 60))
    charts = [
        line_chart("line", range(60), [line, series(*[0.5] * 60, name="b")], is_percent=True),
        line_chart("spike", range(60), [series(*[0.1] * 59, 2e6)], scale="auto"),
        area_chart("area", range(60), [line]),
        dot_chart(
            "dots",
            [row("a name that is too long for a phone", Dot(value=1.0), mark="2 of 8 collapsed")],
            ["x"],
            along="a long name of an axis",
        ),
        bar_chart("bars", [("row", [1, 2])], [("a", 1), ("b", 2)], along="slots"),
    ]
    file = tmp_path / "page.html"
    file.write_text(page("Charts", grid(charts)))
    tab = browser.open(file, size=(390, 844))
    texts = """[...document.querySelectorAll('.plot text')].map(text => {
      const box = text.getBoundingClientRect();
      return [text.textContent, parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a, box.left, box.right];
    })"""
    for size in ((390, 844), (1600, 1000)):
        tab.resize(size)
        for text, pixels, left, right in tab.run(texts):
            assert pixels >= 11, text
            assert left >= 0, text
            assert right <= size[0], text
        assert tab.faults() == []
    tab.dark()
    assert tab.faults() == []
