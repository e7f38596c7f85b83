"""What is usable is remembered by content: a second run opens no picture, and anything that changes reads anew."""

import json
import os
import threading

import pytest
from data.test_problem_table import png, table, write_jsonl, write_parquet

import papo.data.table as table_module
from papo.data import Reading, Remembered

ROWS = [
    {"problem": "How many?", "answer": "3", "images": "1.png"},
    {"problem": "How many?", "answer": "4", "images": "2.png"},
    {"problem": "How many?", "answer": "5", "images": "gone.png"},
]


@pytest.fixture
def folder(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for name in ("1.png", "2.png"):
        (data / name).write_bytes(png())
    write_jsonl(data, ROWS)
    return data


@pytest.fixture
def opened(monkeypatch):
    """The pictures that were opened."""
    found = []
    original = table_module.decode_image

    def counted(stored, folder):
        found.append(stored)
        return original(stored, folder)

    monkeypatch.setattr(table_module, "decode_image", counted)
    return found


def usable(data, cache, *, prompts="encoder", length=lambda problem: 1, watched=None, **settings):
    """Positions, report and notes of one start."""
    notes = []

    def measured(problem):
        notes.append([problem.id, problem.answer])
        return length(problem)

    remembered = Remembered(folder=cache, prompts=prompts, noted=notes)
    reading = Reading(remembered=remembered, **({"progress": watched} if watched else {}))
    kept, report = table(path=str(data), **settings).usable(measured, reading)
    return list(kept.positions), report, notes


def test_a_second_start_opens_no_picture_and_says_the_same(folder, tmp_path, opened):
    first = usable(folder, tmp_path / "cache")
    assert (first[0], opened) == ([0, 1], ["1.png", "2.png", "gone.png"])
    assert first[1].dropped == {"broken_image": 1}
    opened.clear()
    assert usable(folder, tmp_path / "cache") == first
    assert opened == []
    assert first[2] == [["train-0", "3"], ["train-1", "4"]]


def change_a_picture(folder):
    (folder / "1.png").write_bytes(png("blue", size=(31, 20)))


def change_its_time(folder):
    os.utime(folder / "1.png", ns=(1, 1))


def change_a_picture_but_not_its_size_and_time(folder):
    picture = folder / "1.png"
    before, content = picture.stat(), picture.read_bytes()
    picture.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(picture, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = picture.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def add_the_missing_one(folder):
    (folder / "gone.png").write_bytes(png())


def change_a_row(folder):
    write_jsonl(folder, [{**ROWS[0], "answer": "9"}, *ROWS[1:]])


@pytest.mark.parametrize(
    "change",
    [
        change_a_picture,
        change_its_time,
        change_a_picture_but_not_its_size_and_time,
        add_the_missing_one,
        change_a_row,
    ],
)
def test_changed_data_is_read_anew(folder, tmp_path, opened, change):
    usable(folder, tmp_path / "cache")
    opened.clear()
    change(folder)
    usable(folder, tmp_path / "cache")
    assert len(opened) == 3


@pytest.mark.parametrize(
    "settings",
    [
        {"prompts": "another tokenizer"},
        {"max_prompt_tokens": 7},
        {"prompt_suffix": "Answer."},
        {"system_prompt": "Look."},
        {"limit": 2},
        {"filter": {"answer": [3, 4, 5]}},
    ],
)
def test_other_settings_are_another_outcome(folder, tmp_path, opened, settings):
    usable(folder, tmp_path / "cache")
    opened.clear()
    usable(folder, tmp_path / "cache", **settings)
    assert len(opened) >= 2


def test_what_does_not_change_the_problems_does_not_count(folder, tmp_path, opened):
    usable(folder, tmp_path / "cache")
    opened.clear()
    usable(folder, tmp_path / "cache", num_threads=1, section="benchmark.sets.local.problems")
    folder.rename(folder.with_name("moved"))
    assert opened == []


def test_where_one_unusable_problem_stops_the_run_all_are_read(folder, tmp_path, opened):
    usable(folder, tmp_path / "cache")
    with pytest.raises(ValueError, match=r"gone\.png"):
        usable(folder, tmp_path / "cache", strict=True)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"kept": 2', '"kept": 3'),
        lambda text: text.replace("positions", "places"),
        lambda text: "[" * 100_000,
        lambda text: "[]",
        lambda text: json.dumps({"digest": 1}),
    ],
)
def test_a_damaged_outcome_is_made_anew(folder, tmp_path, opened, damage):
    first = usable(folder, tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    file.write_text(damage(file.read_text()))
    opened.clear()
    assert usable(folder, tmp_path / "cache") == first
    assert len(opened) == 3
    opened.clear()
    assert usable(folder, tmp_path / "cache") == first
    assert opened == []


def test_runs_that_start_together_leave_one_whole_outcome(folder, tmp_path):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(usable(folder, tmp_path / "cache")))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [found[0]] * 6
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_where_nothing_can_be_written_every_run_reads(folder, tmp_path, opened):
    (tmp_path / "cache").write_text("a file")
    for _ in range(2):
        assert usable(folder, tmp_path / "cache")[0] == [0, 1]
    assert len(opened) == 6


def test_progress_is_of_what_is_read_and_of_nothing_where_it_is_remembered(folder, tmp_path):
    from contextlib import contextmanager

    seen = []

    @contextmanager
    def watched(total):
        seen.append(total)
        yield lambda what, count: seen.append(count)

    usable(folder, tmp_path / "cache", watched=watched)
    assert seen == [3, 3]
    usable(folder, tmp_path / "cache", watched=watched)
    assert seen == [3, 3]


def test_pictures_inside_parquet_and_inside_a_chat_count_too(tmp_path, opened):
    data = tmp_path / "data"
    data.mkdir()
    (data / "1.png").write_bytes(png())
    part = {"type": "image", "image": "1.png"}
    chat = [{"role": "user", "content": [part, {"type": "text", "text": "?"}]}]
    row = {"problem": chat, "answer": "1"}
    write_parquet(data, [row])
    settings = {"images_column": None}
    usable(data, tmp_path / "cache", **settings)
    usable(data, tmp_path / "cache", **settings)
    assert opened == ["1.png"]
    change_a_picture(data)
    usable(data, tmp_path / "cache", **settings)
    assert len(opened) == 2
