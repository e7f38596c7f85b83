import math
import re

import pytest

from papo.reporting.charts import Series, area_chart, line_chart


def coordinates(chart, shape):
    return [
        [tuple(map(float, point.split(","))) for point in points.split()]
        for points in re.findall(rf'<{shape}[^>]* points="([^"]*)"', chart)
    ]


def series(*values, name="a"):
    return Series(name=name, values=values)


def test_a_line_goes_through_its_values():
    # The plot reaches from x = 54 to 390 and from y = 184 (value 0) up to y = 10 (the highest).
    [points] = coordinates(line_chart("t", [1, 2, 3], [series(0.0, 1.0, 0.5)]), "polyline")
    assert points == [(54.0, 184.0), (222.0, 10.0), (390.0, 97.0)]


def test_a_line_breaks_where_a_value_is_not_finite():
    chart = line_chart("t", [1, 2, 3, 4, 5], [series(0.0, 1.0, math.nan, 1.0, math.inf)])
    assert len(coordinates(chart, "polyline")) == 1
    assert chart.count("<circle") == 1, "a single value between gaps is a dot"
    assert "2 values missing or not finite" in chart


def test_areas_lie_on_one_another_and_fill_what_they_add_up_to():
    chart = area_chart("t", [1, 2], [series(0.25, 0.5, name="low"), series(0.75, 0.5, name="up")])
    low, up = coordinates(chart, "polygon")
    assert low == [(54.0, 140.5), (390.0, 97.0), (390.0, 184.0), (54.0, 184.0)]
    assert up == [(54.0, 10.0), (390.0, 10.0), (390.0, 97.0), (54.0, 140.5)]
    assert chart.index("</svg> up") < chart.index("</svg> low"), "the legend lists from the top"


def test_a_long_curve_keeps_its_spikes_and_few_points():
    values = [0.0] * 20_000
    values[12_345] = 7.0
    [points] = coordinates(line_chart("t", range(20_000), [series(*values)]), "polyline")
    assert len(points) <= 300
    assert min(y for _, y in points) == 10.0


@pytest.mark.parametrize(
    "values",
    [
        (0.0,),
        (math.nan,),
        (5.0, 5.0),
        (-3.0, -2.0),
        (1e308, -1e308),
        (5e-324, 0.0),
        (math.inf, 1.0),
    ],
)
def test_odd_values_still_make_a_chart_of_finite_coordinates(values):
    steps = range(1, len(values) + 1)
    chart = line_chart("t", steps, [series(*values)])
    chart += area_chart("t", steps, [series(*(abs(v) for v in values))])
    numbers = re.findall(r' (?:points|cx|cy|x\d?|y\d?)="([^"]*)"', chart)
    assert not any("nan" in number or "inf" in number for number in numbers)


def test_names_are_escaped_and_lines_differ_in_more_than_colour():
    chart = line_chart("<t>", [1, 2], [series(1.0, 2.0, name="<b>"), series(2.0, 1.0, name="c")])
    assert "<t>" not in chart
    assert "<b>" not in chart
    first, second = re.findall(r"<polyline[^>]*stroke-dasharray:([^\"]*)\"", chart)
    assert first != second


def test_a_chart_says_its_ends_and_extremes():
    chart = line_chart("Reward", [1, 2, 3], [series(0.5, 0.125, 1.0, name="mean")])
    assert 'aria-label="Reward: mean from 0.5 to 1, lowest 0.125, highest 1"' in chart
