"""Charts as inline SVG, for every page and report: no script, text that keeps its size, the page's colours."""

from papo.reporting.charts.axes import Axis, Chart, Scale, as_file
from papo.reporting.charts.lines import Limit, Series, area_chart, line_chart
from papo.reporting.charts.rows import Dot, Row, bar_chart, dot_chart

__all__ = [
    "Axis",
    "Chart",
    "Dot",
    "Limit",
    "Row",
    "Scale",
    "Series",
    "area_chart",
    "as_file",
    "bar_chart",
    "dot_chart",
    "line_chart",
]
