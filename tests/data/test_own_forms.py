"""Own data in every form of docs/data.md: the same problem comes out of each file and of each shape of a row."""

import base64
import csv
import json
import re
from pathlib import Path

import datasets
import pytest
from data.test_problem_table import SUFFIX, png, table, write_jsonl, write_parquet

from papo.data import ProblemError

AUTO = {"question_column": "auto", "answer_column": "auto", "images_column": "auto"}
ROW = {"question": "How many?", "answer": "3", "image": "pictures/1.png"}
URL = "data:image/png;base64," + base64.b64encode(png()).decode()


def turn(role, content):
    return {"role": role, "content": content}


def image_url(url):
    return {"type": "image_url", "image_url": {"url": url}}


TEXT = {"type": "text", "text": "How many?"}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "1.png").write_bytes(png())
    return tmp_path


def dataset_of(*rows):
    features = {name: datasets.Value("string") for name in ROW} | {"image": datasets.Image()}
    return datasets.Dataset.from_list(list(rows), features=datasets.Features(features))


def write_csv(file, *rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def in_image_folder(folder, kind):
    (folder / "train").mkdir()
    (folder / "train" / "1.png").write_bytes(png())
    row = {"file_name": "1.png", "question": "How many?", "answer": "3"}
    if kind == "csv":
        write_csv(folder / "train" / "metadata.csv", row)
    elif kind == "jsonl":
        write_jsonl(folder / "train", [row], "metadata.jsonl")
    else:
        write_parquet(folder / "train", [row], "metadata.parquet")


PICTURE = {"bytes": png(), "path": "1.png"}
FILES = {
    "JSON lines": lambda to: write_jsonl(to, [ROW]),
    "JSON": lambda to: (to / "train.json").write_text(json.dumps([ROW])),
    "CSV": lambda to: write_csv(to / "train.csv", ROW),
    "parquet": lambda to: write_parquet(to, [{**ROW, "image": PICTURE}]),
    "save_to_disk": lambda to: dataset_of({**ROW, "image": PICTURE}).save_to_disk(to),
    "save_to_disk of several splits": lambda to: datasets.DatasetDict(
        train=dataset_of({**ROW, "image": PICTURE}),
        test=dataset_of({**ROW, "image": PICTURE, "answer": "7"}),
    ).save_to_disk(to),
    "ImageFolder, metadata.csv": lambda to: in_image_folder(to, "csv"),
    "ImageFolder, metadata.jsonl": lambda to: in_image_folder(to, "jsonl"),
    "ImageFolder, metadata.parquet": lambda to: in_image_folder(to, "parquet"),
}


def is_the_problem(problem, *, pictures=1, system=None):
    assert problem.question == "<image>" * pictures + f"How many?\n\n{SUFFIX}"
    assert (problem.answer, problem.system_prompt) == ("3", system)
    assert [image.getpixel((0, 0)) for image in problem.images] == [(255, 0, 0)] * pictures


@pytest.mark.parametrize("form", FILES)
def test_every_form_of_file_holds_the_same_problem(folder, form):
    FILES[form](folder)
    problems = table(path=str(folder), **AUTO)
    assert len(problems) == 1
    is_the_problem(problems[0])
    assert problems.census.with_pictures == 1
    (said, *_) = problems.census.notes
    assert "is read as: question 'question', answer 'answer', pictures '" in said


@pytest.mark.parametrize("kind", ["json", "csv", "arrow"])
def test_a_file_is_read_by_its_own_name_too(folder, kind):
    if kind == "arrow":
        dataset_of({**ROW, "image": PICTURE}).save_to_disk(folder / "saved")
        (file,) = (folder / "saved").glob("*.arrow")
    else:
        FILES[kind.upper()](folder)
        file = folder / f"train.{kind}"
    is_the_problem(table(path=str(file), **AUTO)[0])


def test_of_several_saved_splits_the_one_that_is_asked_for_is_read(folder):
    FILES["save_to_disk of several splits"](folder)
    assert table(path=str(folder), split="test", **AUTO)[0].answer == "7"
    with pytest.raises(ValueError, match="holds no split 'validation'"):
        table(path=str(folder), split="validation", **AUTO).preflight()


def test_the_only_split_of_an_image_folder_is_train(folder):
    in_image_folder(folder, "csv")
    for file in (folder / "train").iterdir():
        file.rename(folder / file.name)
    (folder / "train").rmdir()
    is_the_problem(table(path=str(folder), **AUTO)[0])
    with pytest.raises(ValueError, match="holds no split 'test'"):
        table(path=str(folder), split="test", **AUTO).preflight()


@pytest.mark.parametrize("state", ["{", "{}", '{"_data_files": [{"filename": "../a.arrow"}]}'])
def test_a_damaged_or_foreign_state_of_a_saved_data_set_is_refused(folder, state):
    dataset_of({**ROW, "image": PICTURE}).save_to_disk(folder / "saved")
    (next((folder / "saved").glob("*.arrow"))).rename(folder / "a.arrow")
    (folder / "saved" / "state.json").write_text(state)
    with pytest.raises(ValueError, match=r"Save the data set anew|names no files"):
        table(path=str(folder / "saved"), **AUTO).preflight()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("train.json", "{}", "no list of JSON objects"),
        ("train.json", '{"a": 1}\n{"a": 2}', "per line is named .jsonl"),
        ("train.csv", "problem,answer\na,b,c\n", "line 2: 3 cells under 2 columns"),
        ("train.csv", 'problem,answer\na,"b\n', "line 2: "),
        ("train.csv", "a,a\n1,2\n", "line 1: a column has no name, or that of another"),
        ("train.arrow", "no arrow", "cannot be read as Arrow"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(folder, name, text, said):
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=name) as error:
        len(table(path=str(folder / name), **AUTO))
    assert said in str(error.value)


ROWS = {
    "question and answer": ROW,
    "TRL": {"prompt": "How many?", "solution": "3", "image": "pictures/1.png"},
    "TRL, a chat": {
        "prompt": [turn("user", "How many?")],
        "answer": 3,
        "images": ["pictures/1.png"],
    },
    "verl": {
        "prompt": [turn("user", "<image>How many?")],
        "images": ["pictures/1.png"],
        "reward_model": {"style": "rule", "ground_truth": "3"},
    },
    "ms-swift, LLaMA-Factory": {
        "messages": [turn("user", "<image>How many?"), turn("assistant", "3")],
        "images": ["pictures/1.png"],
    },
    "ms-swift with a solution": {
        "messages": [turn("user", "<image>How many?"), turn("assistant", "I see 4.")],
        "images": ["pictures/1.png"],
        "solution": "3",
    },
    "ShareGPT": {
        "conversations": [
            {"from": "human", "value": "<image>How many?"},
            {"from": "gpt", "value": "3"},
        ],
        "image": "pictures/1.png",
    },
    "OpenAI": {
        "messages": [
            turn("user", [image_url("pictures/1.png"), TEXT]),
            turn("assistant", [{"type": "text", "text": "3"}]),
        ]
    },
    "OpenAI, data URL": {"messages": [turn("user", [image_url(URL), TEXT])], "answer": "3"},
    "picture in a part": {
        "messages": [turn("user", [{"type": "image", "image": "pictures/1.png"}, TEXT])],
        "answer": "3",
    },
    "data URL": {**ROW, "image": URL},
}


@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
@pytest.mark.parametrize("form", ROWS)
def test_every_shape_of_a_row_is_the_same_problem(folder, form, write):
    write(folder, [ROWS[form]])
    problems = table(path=str(folder), **AUTO)
    is_the_problem(problems[0])
    assert (problems.census.problems, problems.census.with_pictures) == (1, 1)


def test_a_row_has_several_pictures_or_none(folder):
    pictures = ["pictures/1.png", URL]
    rows = [
        {"question": "How many?", "answer": "3", "images": pictures},
        {"question": "How many?", "answer": "3", "images": []},
        {"question": "How many?", "answer": "3"},
    ]
    problems = table(path=str(write_jsonl(folder, rows)), **AUTO)
    for index, count in enumerate((2, 0, 0)):
        is_the_problem(problems[index], pictures=count)
    chat = {"messages": [turn("user", [image_url(p) for p in pictures] + [TEXT])], "answer": "3"}
    is_the_problem(table(path=str(write_jsonl(folder, [chat])), **AUTO)[0], pictures=2)


def test_a_systems_turn_and_the_prompt_of_the_settings(folder):
    chat = {"messages": [turn("system", "Look."), turn("user", "How many?")], "answer": "3"}
    write_jsonl(folder, [chat])
    is_the_problem(table(path=str(folder), **AUTO)[0], pictures=0, system="Look.")
    settings = {**AUTO, "system_prompt": "Think."}
    is_the_problem(table(path=str(folder), **settings)[0], pictures=0, system="Think.")


@pytest.mark.parametrize(
    "url", ["https://example.com/1.png", "http://127.0.0.1/1.png", "file:///etc/hostname"]
)
@pytest.mark.parametrize("form", ["column", "chat"])
def test_no_address_is_ever_fetched(folder, monkeypatch, url, form):
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("asked the network"))
    chat = {"messages": [turn("user", [image_url(url), TEXT])], "answer": "3"}
    write_jsonl(folder, [chat if form == "chat" else {**ROW, "image": url}])
    with pytest.raises(ProblemError, match="no address is fetched") as error:
        table(path=str(folder), **AUTO)[0]
    assert error.value.reason == "broken_image"


@pytest.mark.parametrize("form", ["column", "chat", "metadata.csv"])
def test_no_form_lets_a_picture_leave_the_data_folder(folder, form):
    (folder / "secret.png").write_bytes(png())
    data = folder / "data"
    data.mkdir()
    chat = {"messages": [turn("user", [image_url("../secret.png"), TEXT])], "answer": "3"}
    if form == "metadata.csv":
        write_csv(data / form, {"file_name": "../secret.png", "question": "?", "answer": "3"})
    else:
        write_jsonl(data, [chat if form == "chat" else {**ROW, "image": "../secret.png"}])
    with pytest.raises(ProblemError, match="leaves the data folder"):
        table(path=str(data), **AUTO)[0]


def test_pictures_stand_in_the_chat_or_in_the_column_and_not_in_both(folder):
    row = {**ROWS["OpenAI"], "images": ["pictures/1.png"]}
    with pytest.raises(ProblemError, match="1 pictures in the chat and 1 in the column 'images'"):
        table(path=str(write_jsonl(folder, [row])), **AUTO)[0]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "How many?", "answer": "3"}, r"has the name of questions .*question_column="),
        ({"problem": "How many?", "reply": "3"}, r"has the name of answers .*answer_column="),
    ],
)
def test_columns_without_a_name_of_the_field_are_asked_for(folder, row, said):
    with pytest.raises(ValueError, match=said):
        len(table(path=str(write_jsonl(folder, [row])), **AUTO))


def test_a_configuration_of_the_hubs_data_set_is_asked_for_by_name(monkeypatch):
    asked = {}
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda *a, **k: asked.update(k) or datasets.Dataset.from_list([ROW]),
    )
    monkeypatch.setattr("papo.data.table.check_hub", lambda *args, **kwargs: None)
    assert table(hub_id="some/data", name="hard", **AUTO).columns.question == "question"
    assert asked["name"] == "hard"


# Which rows

LEVELS = [
    {**ROW, "level": "easy", "grade": 1, "meta": {"kind": "a"}},
    {**ROW, "level": "hard", "grade": 2, "meta": {"kind": "b"}},
    {**ROW, "level": "hard", "grade": 3.0, "meta": {"kind": "b"}},
    {**ROW, "level": None, "grade": None, "meta": {"kind": None}},
]


@pytest.mark.parametrize(
    ("filter", "ids"),
    [
        ({}, [0, 1, 2, 3]),
        ({"level": "hard"}, [1, 2]),
        ({"level": ["easy", "hard"]}, [0, 1, 2]),
        ({"level": "hard", "grade": 3}, [2]),
        ({"grade": "1"}, [0]),
        ({"meta.kind": "b"}, [1, 2]),
        ({"level": None}, [3]),
    ],
)
@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
def test_only_rows_with_the_values_are_problems(folder, filter, ids, write):
    problems = table(path=str(write(folder, LEVELS)), filter=filter, **AUTO)
    assert [problems[i].id for i in range(len(problems))] == [f"train-{i}" for i in ids]
    assert problems.census.problems == len(ids)
    assert len(table(path=str(folder), filter=filter, limit=1, **AUTO)) == 1


def test_a_number_of_the_filter_is_the_text_of_a_csv_file(folder):
    write_csv(folder / "train.csv", {**ROW, "grade": 1}, {**ROW, "grade": 2})
    problems = table(path=str(folder), filter={"grade": 2}, **AUTO)
    assert [problems[i].id for i in range(len(problems))] == ["train-1"]


@pytest.mark.parametrize(
    ("filter", "said"),
    [
        ({"leval": "hard"}, r"data\.filter names the column 'leval', and there are only .*level"),
        ({"level": "medium"}, r"leaves no problem of 4: level holds easy, hard, None"),
        ({"meta": {"kind": "b"}}, r"data\.filter="),
        ({"level": "__import__('os').abort()"}, "leaves no problem"),
    ],
)
def test_a_filter_that_is_none_or_leaves_nothing_says_what_there_is(folder, filter, said):
    write_jsonl(folder, LEVELS)
    with pytest.raises(ValueError, match=said):
        len(table(path=str(folder), filter=filter, **AUTO))


def test_the_page_has_a_row_for_each_form():
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text("utf-8")
    for form in (*FILES, *ROWS):
        name = re.split(",| with| of several", form)[0]
        assert f"| {name}" in page, form
