"""A run's answers in the page, and the wheels that a run needs."""

import json

import pytest

from benchmarks.gpu import report, wheels
from benchmarks.step_model import loop_steps, published_work

MADE_UP = [
    {"cell": "about", "size": "device", "experiment": "papo_g_3b", "commit": "0123456789ab"},
    {"cell": "ceilings", "what": "environment", "device": "a card", "versions": {"torch": "9.9"}},
    {"cell": "ceilings", "event": "start"},
    {"cell": "ceilings", "what": "product", "tflops": 500.0, "rates": {"peak": 5e14}},
    {"cell": "decode", "rows": 255, "ms_a_token": 10.0, "prefill_s": 2.55},
    {"cell": "decode", "rows": 5, "ms_a_token": 1.0, "prefill_s": 0.1},
    {
        **{"cell": "update", "prompts": 16, "update_mfu": 0.25},
        **{"score_s_of_384_prompts": 50.0, "update_s_of_384_prompts": 100.0},
    },
    {"cell": "flex", "failed": "out of its time"},
]


@pytest.fixture
def page(tmp_path):
    page = tmp_path / "benchmarks.md"
    page.write_text(f"# Before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    return page


def test_a_step_is_put_together_of_its_measured_parts(page):
    report.write(page, MADE_UP)
    text = page.read_text()
    work = published_work()
    # 384 x 5 rows in batches of 255 at 10 ms a step, and 1,920 / 255 prefills of 2.55 s.
    sampling = 0.01 * loop_steps(work.responses.ravel(), 255) + 2.55 * 1920 / 255
    seconds = sampling + 150
    assert f"({sampling:.0f} s sampling, 50 scoring, 100 update)" in text
    assert f"| {seconds:.0f} | {work.responses.sum() / seconds:,.0f} | 25 % | this run |" in text
    assert "Without an answer: flex (out of its time)." in text
    assert "on a card, experiment papo_g_3b, commit 012345678, torch 9.9" in text
    assert "with what was measured (peak)" in text
    assert report.NOTHING not in text
    assert (text.startswith("# Before\n"), text.endswith("\nafter\n")) == (True, True)


def test_published_rows_stand_beside_with_their_sources(page):
    report.write(page, MADE_UP)
    text = page.read_text()
    assert (
        "8 x H100 | 120 to 180 | 1,200 to 1,800 | 6 to 8 % | EasyR1, assets/baselines.md |" in text
    )
    assert (
        "PAPO, Qwen2.5-VL-3B, ViRL39K, 384 x 5, 2 x H100 | 428.1 |  |  | arXiv:2507.06448v5, Table 14"
        in text
    )


def test_without_answers_the_page_says_so(page):
    report.write(page, [])
    assert report.NOTHING in page.read_text()
    assert "this run" not in page.read_text()


def test_the_page_of_this_checkout_says_that_nothing_was_measured(repository):
    text = (repository / "docs" / "benchmarks.md").read_text("utf-8")
    section = text.split(report.BEGIN)[1].split(report.END)[0]
    assert section.strip() == report.section([])


def test_answers_of_a_toy_are_refused(page, tmp_path):
    file = tmp_path / "answers.jsonl"
    file.write_text(json.dumps({"cell": "about", "size": "toy"}) + "\n")
    before = page.read_text()
    with pytest.raises(ValueError, match="got a run of 'toy'"):
        report.main(page, file)
    assert page.read_text() == before


def test_a_page_without_marks_is_left_alone(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing")
    with pytest.raises(ValueError, match="has one line"):
        report.write(page, [])


def test_wheels_are_pinned_and_leave_torch_and_what_is_there():
    names = {one.split("==")[0] for one in wheels.wanted()}
    assert {
        "transformers",
        "lightning",
        "hydra-core",
        "omegaconf",
        "antlr4-python3-runtime",
    } <= names
    assert not names & {"torch", "filelock", "papo", "wandb", "pyarrow"}
    locked = wheels.LOCK.read_text("utf-8")
    assert all(f"{one} ;" in locked or f"{one}\n" in locked for one in wheels.wanted())
    there = {
        one.split("==")[0] for one in wheels.wanted(["Lightning==2.6.6", "transformers==5.0.0"])
    }
    assert "lightning" not in there
    assert "transformers" in there, "one that papo does not take is missing"


def test_a_pin_is_that_of_the_machine_with_the_gpu():
    lines = [
        "a==1 ; python_full_version < '3.12'",
        "a==2 ; python_full_version >= '3.12'",
        "# a==3",
    ]
    assert list(wheels._pins(lines)) == [("a", "2")]
