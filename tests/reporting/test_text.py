"""Tables and numbers of reports: one writer each, and what comes from outside stays text in it."""

import re

import pytest

from papo.reporting.markdown_text import markdown_table
from papo.reporting.numbers import interval_text, no_interval, percent
from papo.statistics import Interval


def test_cells_of_a_markdown_table_stay_cells():
    table = markdown_table(["a|b", "number"], [["<b>one\ntwo", "1"], ["x & y|z", "2"]], texts=1)
    assert table.splitlines() == [
        "| a\\|b | number |",
        "| --- | ---: |",
        "| &lt;b&gt;one two | 1 |",
        "| x &amp; y\\|z | 2 |",
    ]
    assert markdown_table(["a", "b"], []).splitlines()[1] == "| --- | --- |", "words are flush left"


def test_tables_of_markdown_are_written_in_one_place(repository):
    written = {
        path.relative_to(repository).as_posix()
        for path in (repository / "papo").rglob("*.py")
        if re.search(r'"[ |]*---(:|\||"\])', path.read_text("utf-8"))
    }
    assert written == {"papo/reporting/markdown_text.py"}


@pytest.mark.parametrize(
    "found", [Interval(0.67, 0.6024, 0.7308), {"value": 0.67, "low": 0.6024, "high": 0.7308}]
)
def test_an_interval_is_an_estimate_with_its_ends(found):
    assert percent(found) == "67.0 [60.2, 73.1]"
    assert percent(found, signed=True) == "+67.0 [+60.2, +73.1]"
    assert interval_text(found, "{:.2f} s".format) == "0.67 s [0.60 s, 0.73 s]"


def test_what_has_no_interval_says_so():
    assert (percent(0.125), percent(-0.5, signed=True), percent(None)) == ("12.5", "-50.0", "")
    assert (no_interval(), no_interval(3)) == ("[no interval]", "[n = 3: no interval]")
