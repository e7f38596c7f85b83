"""Responses of two runs side by side: which pairs, their counts, colours, and hostile text."""

import json
import sys

import pytest
from analysis.chromium import PHONE
from analysis.evaluation_fixtures import record, write_evaluation

from papo.analysis.pages.response_pairs import draw, pairs_by_pattern, response_pairs_page
from papo.storage.evaluated_run import read_evaluated_runs
from scripts import compare_responses


def records(rows):
    """From a text per problem with a digit per response, 1 where it is right."""
    return [
        record(problem, f"answer {problem}.{index}", response_index=index, correct=digit == "1")
        for problem, row in enumerate(rows)
        for index, digit in enumerate(row)
    ]


@pytest.fixture
def folders(tmp_path):
    return (
        write_evaluation(tmp_path / "a", records(["01", "11", "00"])),
        write_evaluation(tmp_path / "b", records(["10", "01", "01"])),
    )


def read(folders):
    return read_evaluated_runs(list(folders), view="image", require_finished=True)


def test_pairs_are_of_equal_problem_and_index(folders):
    found = pairs_by_pattern(*read(folders))
    as_digits = {
        name: [f"{key[1]}.{index}" for key, index in slots] for name, slots in found.items()
    }
    assert as_digits == {
        "fixed": ["p0.0", "p2.1"],
        "broken": ["p0.1", "p1.0"],
        "wrong twice": ["p2.0"],
        "right twice": ["p1.1"],
    }


def test_the_page_counts_all_pairs_and_shows_those_drawn(folders):
    text = response_pairs_page(read(folders), count=1, seed=0, problem_id=None)
    for heading in (
        "Fixed: 2 of 6",
        "Broken: 2 of 6",
        "Wrong twice: 1 of 6",
        "Right twice: 1 of 6",
    ):
        assert f">{heading}</h2>" in text
    assert text.count("<article>") == 4
    assert "data:image/" in text
    assert "No token is coloured" in text
    every = response_pairs_page(read(folders), count=9, seed=0, problem_id=None)
    assert every.count("<article>") == 6
    one = response_pairs_page(read(folders), count=0, seed=0, problem_id="p2")
    assert one.count("<article>") == 2
    assert "answer 2.1" in one
    assert "answer 1.0" not in one


def test_the_draw_takes_a_problem_once_and_is_a_function_of_the_seed():
    slots = [(("set", f"p{problem}"), index) for problem in range(20) for index in range(3)]
    first = draw(slots, 20, 1, "fixed")
    assert len({key for key, _ in first}) == 20
    assert first == draw(slots, 20, 1, "fixed")
    assert first != draw(slots, 20, 2, "fixed")
    assert {index for _, index in first} == {0, 1, 2}


def test_tokens_are_coloured_where_the_probe_scored_them(folders):
    scored = {
        "benchmark": "geo3k",
        "problem_id": "p0",
        "kind": "own",
        "response_index": 0,
        "tokens": ["answer", " 0.0"],
        "kl_k3": [0.001, 3.0],
    }
    file = folders[1] / "perception_kl.jsonl"
    reference = {**scored, "kind": "reference", "tokens": ["not", "this"]}
    file.write_text(json.dumps(scored) + "\n" + json.dumps(reference) + "\n")
    text = response_pairs_page(read(folders), count=9, seed=0, problem_id="p0")
    assert '<span class="k4" title="3 nats"> 0.0</span>' in text
    assert '<span class="k0" title="0.001 nats">answer</span>' in text
    assert ">not</span>" not in text
    assert "mean over its masks (k3)" in text
    file.write_text('{"kind": "own"}\n')
    with pytest.raises(ValueError, match=r"line 1 is no record of the probe"):
        response_pairs_page(read(folders), count=9, seed=0, problem_id="p0")


def test_tokens_of_the_image_view_do_not_stand_for_responses_of_another(tmp_path):
    blank = [record(0, "seen without", view="blank"), record(0, "seen with", view="image")]
    folders = [write_evaluation(tmp_path / name, blank) for name in ("a", "b")]
    scored = {
        **{"benchmark": "geo3k", "problem_id": "p0", "kind": "own", "response_index": 0},
        **{"tokens": ["seen", " with"], "kl_k3": [0.001, 3.0]},
    }
    for folder in folders:
        (folder / "perception_kl.jsonl").write_text(json.dumps(scored) + "\n")
    runs = read_evaluated_runs(folders, view="blank", require_finished=True)
    text = response_pairs_page(runs, count=1, seed=0, problem_id=None)
    assert text.count("seen without") == 2
    assert " with</span>" not in text
    assert "No token is coloured" in text


def test_whatever_a_response_says_stays_text(tmp_path):
    evil = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>"
    rows = [record(0, evil, answer=evil, reference=evil)]
    folders = [
        write_evaluation(tmp_path / name, rows, question=f"<image>{evil}") for name in ("a", "b")
    ]
    text = response_pairs_page(read(folders), count=1, seed=0, problem_id=None)
    assert "<script>" not in text
    assert "<img src=x" not in text
    assert "&lt;script&gt;" in text


def test_the_page_fits_a_phone_and_asks_for_nothing(browser, tmp_path):
    evil = "</p><script>document.title = 666</script>" + "x" * 3_000
    rows = [record(0, evil, problem_id=evil, answer=evil, reference=evil)]
    folders = [
        write_evaluation(tmp_path / name, rows, question=f"<image>{evil}") for name in ("a", "b")
    ]
    file = tmp_path / "page.html"
    file.write_text(response_pairs_page(read(folders), count=1, seed=0, problem_id=None))
    tab = browser.open(file, size=PHONE)
    assert "666" not in tab.run("document.title")
    assert tab.run("[...document.images].length") == 1
    assert tab.faults() == []
    tab.dark()
    assert tab.faults() == []


def test_the_command_writes_the_page_and_refuses_other_problems(
    folders, tmp_path, monkeypatch, capsys
):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["compare_responses.py", *map(str, arguments)])
        return compare_responses.main(), capsys.readouterr()

    code, said = run(*folders)
    assert code == 0
    assert (folders[1] / "responses.html").read_text().startswith("<!doctype html>")
    code, said = run(*folders, "--problem", "nowhere")
    assert code == 1
    assert "has no problem 'nowhere'" in said.err
    assert "got -1" in run(*folders, "--count", "-1")[1].err
    other = write_evaluation(tmp_path / "c", records(["11"]))
    assert run(folders[0], other)[0] == 1
