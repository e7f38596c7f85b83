import json

import pytest

from benchmarks.measure import spread
from benchmarks.report import (
    Row,
    check_results,
    markdown,
    not_measured,
    repetition_count,
    results,
    row_of,
    table,
    versions_said,
    write,
)


def row(value, goal):
    return Row(benchmark="b", case="c", goal=goal, value=value)


@pytest.mark.parametrize(
    ("value", "goal", "verdict"),
    [
        (2.0, (">=", 2.0), "reached"),
        (1.99, (">=", 2.0), "missed"),
        (1.25, ("<=", 1.25), "reached"),
        (1.26, ("<=", 1.25), "missed"),
        (5.0, None, "reported"),
        (None, (">=", 2.0), "not measured"),
    ],
)
def test_the_verdict_follows_from_goal_and_value(value, goal, verdict):
    assert row(value, goal).verdict == verdict


def test_results_are_written_with_everything_that_explains_them(tmp_path):
    rows = [
        row_of(spread([2.0, 3.0, 4.0]), benchmark="speed", case="small", goal=(">=", 2.5)),
        not_measured("peer", "T=64", "no network"),
    ]
    path = tmp_path / "deep" / "results.json"
    write(path, results(rows, repetitions=3))
    content = json.loads(path.read_text())
    check_results(content)
    assert {"commit", "versions", "device", "threads", "repetitions", "measured_at"} <= set(content)
    assert content["repetitions"] == 3
    first, second = content["rows"]
    assert (first["value"], first["low"], first["high"]) == (3.0, 2.0, 4.0)
    assert first["verdict"] == "reached"
    assert (second["verdict"], second["value"], second["note"]) == (
        "not measured",
        None,
        "no network",
    )


def test_a_field_that_is_missing_is_named():
    content = results([], repetitions=1)
    del content["commit"]
    with pytest.raises(ValueError, match="results lack commit"):
        check_results(content)


def test_a_verdict_that_contradicts_its_number_is_refused():
    content = results([row(1.0, (">=", 2.0))], repetitions=1)
    content["rows"][0]["verdict"] = "reached"
    with pytest.raises(ValueError, match="the verdict is missed, not reached"):
        check_results(content)


def test_a_row_without_a_number_needs_a_reason():
    content = results([row(None, None)], repetitions=1)
    with pytest.raises(ValueError, match="no reason given"):
        check_results(content)


def test_the_table_shows_goal_value_range_and_verdict():
    rows = [
        row_of(spread([2.0, 3.0, 4.0]), benchmark="speed", case="small", goal=(">=", 3.5)),
        not_measured("peer", "T=64", "no network"),
    ]
    text = table(results(rows, repetitions=3)["rows"])
    _, speed, peer = text.splitlines()
    assert speed.split() == [
        "speed",
        "small",
        ">=",
        "3.50x",
        "3.00x",
        "(2.00x",
        "to",
        "4.00x)",
        "missed",
    ]
    assert peer.endswith("not measured: no network")


def test_a_median_of_no_repetition_is_refused():
    with pytest.raises(Exception, match="at least 1 repetition; got 0"):
        repetition_count("0")


def test_the_same_table_can_be_kept_in_a_document():
    rows = [row_of(spread([0.5]), benchmark="MFU", case="small", goal=None, unit="%")]
    head, rule, line = markdown(results(rows, repetitions=1)["rows"]).splitlines()
    assert head.count("|") == rule.count("|") == line.count("|")
    assert line == "| MFU | small |  | 50 % |  | reported |"


def test_both_sides_say_their_versions_and_where_they_differ():
    own = {"papo": "0.1.0", "transformers": "5.24.0", "torch": "2.13.0"}
    rows = [
        {
            **{"benchmark": "GRPO step", "case": case},
            "details": {
                "said": {
                    "grpo": {"versions": own},
                    "peer": {"versions": {"trl": "1.16.0", "transformers": "5.23.0"}},
                }
            },
        }
        for case in ("T=64", "T=256")
    ]
    alone = {"benchmark": "PAPO / GRPO", "details": {"said": {"grpo": {"versions": own}}}}
    assert versions_said([*rows, alone, {"benchmark": "head", "details": {}}]) == [
        "GRPO step: papo with transformers 5.24.0, torch 2.13.0; peer with trl 1.16.0, transformers 5.23.0: "
        "not the same: transformers 5.24.0 here and 5.23.0 there"
    ]
    rows[0]["details"]["said"]["peer"]["versions"]["transformers"] = "5.24.0"
    assert versions_said(rows[:1])[0].endswith(": the same")
