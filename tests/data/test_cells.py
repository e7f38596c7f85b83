"""Questions and answers of every form that tables come in are read exactly, or refused by name."""

import datetime
import decimal
import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data.test_problem_table import SUFFIX, png, table, write_jsonl, write_parquet

from papo.data import ProblemError

PICTURE = {"bytes": png(), "path": None}


def turn(role, content):
    return {"role": role, "content": content}


def text_part(text):
    return {"type": "text", "text": text}


IMAGE_PART = {"type": "image", "text": None}


def read(folder, row, *, as_json=False, **settings):
    (write_jsonl if as_json else write_parquet)(folder, [row])
    return table(path=str(folder), **settings)


def question_of(folder, value, pictures=1, **settings):
    row = {"prompt": value, "answer": "1", "images": [PICTURE] * pictures}
    return read(folder, row, question_column="prompt", **settings)[0].question


@pytest.mark.parametrize(
    "chat",
    [
        [turn("user", "<image>How many?")],
        [turn("system", "Think."), turn("user", "<image>How many?")],
        [turn("user", [IMAGE_PART, text_part("How many?")])],
        [turn("user", [{"type": "image", "index": 0}, {"index": None, **text_part("How many?")}])],
        [turn("user", "How many?")],
        [turn("user", [text_part("How "), text_part("many?")])],
    ],
)
def test_the_question_of_a_chat_is_the_turn_of_its_user(tmp_path, chat):
    assert question_of(tmp_path, chat) == f"<image>How many?\n\n{SUFFIX}"


def test_the_pictures_of_a_chat_stand_where_its_parts_say(tmp_path):
    parts = [text_part("Is "), IMAGE_PART, text_part(" like "), IMAGE_PART, text_part("?")]
    question = question_of(tmp_path, [turn("user", parts)], pictures=2)
    assert question.startswith("Is <image> like <image>?")


def test_a_system_turn_is_shown_counted_and_replaced_where_that_is_asked_for(tmp_path):
    chats = [[turn("system", "Think."), turn("user", "Why?")], [turn("user", "How?")]]
    rows = [{"problem": chat, "answer": "1", "images": []} for chat in chats]
    problems = table(path=str(write_parquet(tmp_path, rows)))
    assert [problems[i].system_prompt for i in range(2)] == ["Think.", None]
    assert problems.census.notes == (
        "1 questions come with a system's turn, which is shown; data.system_prompt= takes its place",
    )
    replaced = table(path=str(tmp_path), system_prompt="Look.")
    assert [replaced[i].system_prompt for i in range(2)] == ["Look.", "Look."]
    assert replaced.census.notes == (
        "the system's turn of 1 questions is not shown; data.system_prompt= takes its place",
    )
    assert table(path=str(tmp_path), system_prompt="")[0].system_prompt is None


def test_the_answer_of_a_chat_is_no_part_of_its_question(tmp_path):
    chat = [turn("user", "<image>How many?"), turn("assistant", "The answer is 12.")]
    problem = read(tmp_path, {"messages": chat, "images": [PICTURE]}, question_column="messages",
                   answer_column=None)[0]  # fmt: skip
    assert problem.question == f"<image>How many?\n\n{SUFFIX}"
    assert problem.answer == "The answer is 12."
    # A column of answers wins; the turn is still no part of the question.
    other = read(tmp_path, {"messages": chat, "answer": 12, "images": [PICTURE]},
                 question_column="messages")[0]  # fmt: skip
    assert (other.question, other.answer) == (problem.question, "12")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            [turn("user", "1?"), turn("assistant", "1."), turn("user", "2?")],
            "a chat of the turns user, assistant, user; a problem is one turn of the user",
        ),
        ([turn("user", "1?"), turn("assistant", "1."), turn("assistant", "2?")], "turns user, "),
        ([turn("assistant", "12")], "turns assistant"),
        (
            [turn("system", [{"type": "image", "image": "a.png"}]), turn("user", [text_part("?")])],
            "a picture in",
        ),
        ([{"from": "human", "says": "How many?"}], "a list of 1, "),
        (["How many?", "How long?"], "a list of 2, "),
        ({"text": "How many?"}, "an object, "),
        (5, "a number, 5;"),
        (True, "a truth value, True;"),
        (b"How many?", "bytes, b'How many?';"),
        ([turn("user", [{"type": "image", "size": 3}])], "a turn with the part"),
        (
            [turn("user", [{"type": "image_url", "image_url": {"detail": "low"}}])],
            "a turn with the part",
        ),
        ([turn("user", [{"type": "image", "image": "a"}, {"type": "image"}])], "and 2 places of"),
        ([turn("user", [{"type": "image", "index": 1}])], "a turn with the part"),
        ([turn("user", [{"type": "video"}])], "a turn with the part"),
        ([turn("user", ["How many?"])], "a turn with the part How many?"),
        ([turn("user", {"text": "How many?"})], "a turn with the part {'text'"),
    ],
)
def test_a_question_that_is_no_text_is_refused_with_its_column_and_the_key(tmp_path, value, said):
    with pytest.raises(ProblemError, match=r"question_column=") as error:
        question_of(tmp_path, value)
    assert error.value.reason == "not_text"
    assert said in str(error.value)
    assert "problem train-0 of test: the column 'prompt' holds" in str(error.value)
    assert "(data.question_column=)" in str(error.value)
    with pytest.raises(
        ValueError, match=r"no problem of .* can be read; the first: problem train-0"
    ):
        _ = table(path=str(tmp_path), question_column="prompt").census


def answer_of(folder, value, **settings):
    return read(folder, {"problem": "<image>?", "answer": value, "images": [PICTURE]}, **settings)[
        0
    ].answer


NUMBERS = [
    (5, "5"),
    (-7, "-7"),
    (0, "0"),
    (2**63 - 1, "9223372036854775807"),
    (5.0, "5"),
    (-0.0, "0"),
    (0.1, "0.1"),
    (3.1415926, "3.1415926"),
    (-2.50, "-2.5"),
    (1e-7, "0.0000001"),
    (1.5e-10, "0.00000000015"),
    (1e23, "1" + "0" * 23),
    (123456789.125, "123456789.125"),
]


@pytest.mark.parametrize(("number", "text"), NUMBERS)
def test_a_number_is_its_digits_in_parquet_and_in_json(tmp_path, number, text):
    assert answer_of(tmp_path, number) == text
    row = {"problem": "?", "answer": number, "images": None}
    (tmp_path / "json").mkdir()
    assert read(tmp_path / "json", row, as_json=True)[0].answer == text
    assert (type(number)(text), "e" in text) == (number, False)


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.decimal128(9, 4)])
def test_a_number_of_32_bits_is_the_digits_it_was_written_with(tmp_path, kind):
    values = [decimal.Decimal(text) for text in ("0.1", "5", "2.5", "-0.3")]
    if pa.types.is_floating(kind):
        values = [float(value) for value in values]
    columns = {
        "problem": ["?"] * 4,
        "answer": pa.array(values, pa.float64() if pa.types.is_floating(kind) else kind).cast(kind),
        "images": pa.array([None] * 4, pa.string()),
    }
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    problems = table(path=str(tmp_path))
    assert [problems[i].answer for i in range(4)] == ["0.1", "5", "2.5", "-0.3"]


@pytest.mark.parametrize("value", [None, math.nan])
def test_no_answer_and_no_number_is_no_reference(tmp_path, value):
    for as_json in (False, True):
        folder = tmp_path / str(as_json)
        folder.mkdir()
        row = {"problem": "?", "answer": value, "images": None}
        rows = [{**row, "answer": 1.0}, row]
        (write_jsonl if as_json else write_parquet)(folder, rows)
        problems = table(path=str(folder))
        assert problems[0].answer == "1"
        with pytest.raises(ProblemError, match="the reference answer is empty") as error:
            problems[1]
        assert error.value.reason == "empty_answer"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (["A", "C"], "a list of 2, ['A', 'C'];"),
        (["A"], "a list of 1, ['A'];"),
        ([], "a list of 0, [];"),
        ({"value": "3", "unit": "cm"}, "or a field: answer.value, answer.unit"),
        ([turn("user", "?"), turn("assistant", "3")], "a list of 2, "),
        (b"3", "bytes, b'3';"),
        (True, "a truth value, True;"),
        (math.inf, "a number, inf;"),
        (datetime.date(2026, 1, 2), "a date, datetime.date(2026, 1, 2);"),
    ],
)
def test_an_answer_that_is_no_text_and_no_number_is_refused_with_its_column(tmp_path, value, said):
    with pytest.raises(ProblemError, match=r"\(data\.answer_column=\)") as error:
        answer_of(tmp_path, value)
    assert error.value.reason == "not_text"
    assert said in str(error.value)
    assert "problem train-0 of test: the column 'answer' holds" in str(error.value)


def test_a_field_of_a_column_of_objects_is_named_with_a_dot(tmp_path):
    row = {
        "prompt": [turn("user", "<image>How many?")],
        "reward_model": {"style": "rule", "ground_truth": 12},
        "extra": {"index": {"id": 7}},
        "images": [PICTURE],
    }
    columns = {
        "question_column": "prompt",
        "answer_column": "reward_model.ground_truth",
        "id_column": "extra.index.id",
    }
    problems = read(tmp_path, row, **columns)
    assert (problems[0].answer, problems[0].id) == ("12", "7")
    assert (problems.census.problems, problems.census.notes) == (1, ())
    misspelt = table(path=str(tmp_path), **{**columns, "answer_column": "reward_model.truth"})
    with pytest.raises(ValueError, match=r"no field 'truth', only style, ground_truth.*answer_col"):
        _ = misspelt.census
    absent = table(path=str(tmp_path), **{**columns, "answer_column": "reward.truth"})
    with pytest.raises(ValueError, match=r"no column 'reward\.truth', only prompt, reward_model"):
        _ = absent.census


def test_a_column_may_have_a_dot_in_its_name_and_a_row_no_object(tmp_path):
    rows = [
        {"problem": "?", "a.b": "dotted", "a": {"b": "field"}, "images": None},
        {"problem": "?", "a.b": "dotted", "a": None, "images": None},
    ]
    write_jsonl(tmp_path, rows)
    assert table(path=str(tmp_path), answer_column="a.b")[0].answer == "dotted"
    write_jsonl(tmp_path, [{k: v for k, v in row.items() if k != "a.b"} for row in rows])
    problems = table(path=str(tmp_path), answer_column="a.b")
    assert problems[0].answer == "field"
    with pytest.raises(ProblemError, match="the reference answer is empty"):
        problems[1]


@pytest.mark.parametrize("value", [["a"], {"a": 1}, b"a", True])
def test_an_id_that_is_a_structure_is_refused(tmp_path, value):
    row = {"problem": "<image>?", "answer": "1", "images": [PICTURE], "id": value}
    with pytest.raises(ProblemError, match=r"column 'id' holds .* \(data\.id_column=\)"):
        read(tmp_path, row, id_column="id")[0]


def test_one_problem_that_cannot_be_read_is_left_out_and_no_more(tmp_path):
    chats = [[turn("user", "How?")], [turn("assistant", "So."), turn("user", "How?")]]
    rows = [{"problem": chat, "answer": "1", "images": []} for chat in chats]
    problems = table(path=str(write_parquet(tmp_path, rows)))
    assert problems.census.problems == 2
    kept, report = problems.usable(lambda problem: 1)
    assert (len(kept), report.dropped) == (1, {"not_text": 1})
    assert "So." not in json.dumps([kept[i].question for i in range(len(kept))])
