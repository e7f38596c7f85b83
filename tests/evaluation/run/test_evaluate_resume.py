"""A killed evaluation, continued, ends with the tables of the uninterrupted one: to the byte."""

import json
import signal
import subprocess
from pathlib import Path

import pytest
from evaluation.evaluation_command import TABLES

MOMENTS = (
    "while_sampling",
    "in_the_second_set",
    "between_responses_and_their_batch",
    "in_the_middle_of_a_response",
    "in_the_middle_of_a_problem",
    "in_the_middle_of_a_batch_row",
    "before_the_tables",
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory, forked_python):
    folder = tmp_path_factory.mktemp("evaluations")
    driver = Path(__file__).with_name("evaluation_crash_driver.py")
    subprocess.run([forked_python, driver, folder], check=True, timeout=280)
    return folder


def test_the_uninterrupted_evaluation_is_whole(runs):
    log = (runs / "uninterrupted.log").read_text()
    assert json.loads((runs / "outcomes.json").read_text())["uninterrupted"] == [0], log
    lines = (runs / "uninterrupted" / "responses.jsonl").read_text().splitlines()
    assert len(lines) == 2 * 4 * 2
    assert "continuing" not in log


@pytest.mark.parametrize("moment", MOMENTS)
def test_it_was_killed_and_continued(runs, moment):
    log = (runs / f"{moment}.log").read_text()
    outcomes = json.loads((runs / "outcomes.json").read_text())
    assert outcomes[moment] == [signal.SIGKILL, 0], log
    assert "continuing: " in log


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("table", TABLES)
def test_tables_are_those_of_the_uninterrupted_evaluation(runs, moment, table):
    assert (runs / moment / table).read_bytes() == (runs / "uninterrupted" / table).read_bytes()


@pytest.mark.parametrize("moment", MOMENTS)
def test_no_half_written_file_is_left(runs, moment):
    assert not list((runs / moment).rglob("*.unfinished"))
