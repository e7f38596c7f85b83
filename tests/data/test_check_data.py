"""`papo check data` says what would be read, what is left out, and which references the reward cannot read."""

import json
import sys

import pytest
from PIL import Image

from papo.commands import front_door
from papo.commands.command_line import main

TINY = ("model=tiny_qwen2_5_vl",)


@pytest.fixture(autouse=True)
def command(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["papo"])
    monkeypatch.setattr(front_door, "_failures", [])


def check(*words):
    return main(["check", "data", *words])


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    Image.new("RGB", (56, 84), "red").save(folder / "1.png")
    rows = [
        {"question": "How <b>many?", "answer": "3", "image": "1.png"},
        {
            "question": "How many?",
            "answer": "<answer>4</answer> as {a, b\x1b[31m",
            "image": "1.png",
        },
        {"question": "How many?", "answer": "5", "image": "gone.png"},
        {"question": "How many?", "answer": "", "image": "1.png"},
    ]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_it_says_what_is_read_left_out_and_not_graded_right(data, tmp_path, capsys):
    assert check(f"data.path={data}", *TINY, f"run_dir={tmp_path / 'page'}") == 0
    said = capsys.readouterr().out
    assert "4 rows of train.jsonl; columns: answer, image, question" in said
    assert "question 'question', answer 'answer', pictures 'image'" in said
    assert "kept 2 of 4 problems, 2 with pictures" in said
    assert "dropped 1 (broken_image), e.g. problem train-2 of local: gone.png" in said
    assert "dropped 1 (empty_answer), e.g. problem train-3" in said
    assert "references graded against themselves: 1 of 2 judged right (50.0 %)" in said
    assert "not judged right: train-1: <answer>4</answer> as {a, b" in said
    assert "\x1b" not in said
    # 56 x 84 pixels are 4 x 6 patches of 14, four to an image token.
    assert "<|image_pad|> x 6" in said
    assert not (tmp_path / "page" / "run.json").exists()
    page = (tmp_path / "page" / "data.html").read_text()
    assert "How &lt;b&gt;many?" in page
    assert "<b>many" not in page
    assert page.count("<img") == 1
    assert "<code>&lt;|image_pad|&gt; x 6</code>" in page
    assert "broken_image" in page


def test_where_nothing_can_be_read_one_line_says_why(data, tmp_path, capsys):
    assert (
        check(f"data.path={data}", "data.question_column=text", *TINY, f"run_dir={tmp_path}") == 1
    )
    (line,) = capsys.readouterr().err.splitlines()
    assert "has no column 'text'" in line
    assert "data.question_column=" in line


def test_without_the_model_all_but_its_tokens_is_told(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    words = ("model.path=null", "model.hub_id=nobody/nothing", f"run_dir={tmp_path / 'page'}")
    assert check(f"data.path={data}", *words) == 0
    said = capsys.readouterr().out
    assert "prompts are not measured, and no tokens shown" in said
    assert "kept 2 of 4 problems" in said
    assert "<img" in (tmp_path / "page" / "data.html").read_text()


def test_problems_that_are_drawn_have_nothing_to_check(tmp_path, capsys):
    assert check("data=perception_lab", *TINY, f"run_dir={tmp_path}") == 1
    assert "there is nothing to check" in capsys.readouterr().err
