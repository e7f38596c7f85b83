"""Tables of every supported layout become the same problems; what is missing is named at once."""

import io
import json
import socket
import time
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from papo.data import ProblemError, ProblemTable

GEOMETRY3K = Path(__file__).parents[2] / ".." / "shared" / "geometry3k"
SUFFIX = "Think, then answer in \\boxed{}."


def png(color="red", size=(30, 20), mode="RGB"):
    encoded = io.BytesIO()
    Image.new(mode, size, color).save(encoded, "PNG")
    return encoded.getvalue()


def table(**changes):
    settings = {
        "source": "test",
        "path": None,
        "hub_id": None,
        "revision": None,
        "split": "train",
        "question_column": "problem",
        "answer_column": "answer",
        "images_column": "images",
        "id_column": None,
        "truth_columns": (),
        "prompt_suffix": SUFFIX,
        "num_rows": None,
        "limit": None,
        "max_prompt_tokens": 100,
        "strict": False,
        "num_threads": 2,
    }
    return ProblemTable(**{**settings, **changes})


ROWS = [
    {"problem": "<image>How many?", "answer": "3", "images": [{"bytes": png(), "path": "0.png"}]},
    {
        "problem": "Compare <image> with <image>.",
        "answer": "A",
        "images": [{"bytes": png("blue"), "path": None}, {"bytes": png("green"), "path": None}],
    },
    {"problem": "One and one?", "answer": "2", "images": []},
]


def write_parquet(folder, rows=ROWS, name="train.parquet"):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), file)
    return folder


def write_jsonl(folder, rows, name="train.jsonl"):
    (folder / name).write_text("\n".join(json.dumps(row) for row in rows))
    return folder


def test_parquet_rows_become_problems_with_suffix_images_and_ids(tmp_path):
    problems = table(path=str(write_parquet(tmp_path)))
    assert len(problems) == 3
    one, two, text_only = problems[0], problems[1], problems[2]
    assert one.question == f"<image>How many?\n\n{SUFFIX}"
    assert (one.answer, one.id, one.source, one.truth) == ("3", "train-0", "test", None)
    assert [image.getpixel((0, 0)) for image in one.images] == [(255, 0, 0)]
    assert [image.getpixel((0, 0)) for image in two.images] == [(0, 0, 255), (0, 128, 0)]
    assert text_only.images == ()
    assert [problems[0].id, len(problems)] == [one.id, 3]


@pytest.mark.parametrize(
    "name", ["train-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"]
)
def test_a_folder_cloned_from_the_hub_is_found(tmp_path, name):
    assert len(table(path=str(write_parquet(tmp_path, name=name)))) == 3


def test_shards_follow_one_another(tmp_path):
    write_parquet(tmp_path, ROWS[:1], "train-00000-of-00002.parquet")
    write_parquet(tmp_path, ROWS[1:], "train-00001-of-00002.parquet")
    problems = table(path=str(tmp_path))
    assert [problems[i].answer for i in range(len(problems))] == ["3", "A", "2"]


def test_the_answers_of_one_shard_may_be_numbers_and_those_of_another_text(tmp_path):
    for number, answers in enumerate(([3, 12], ["A", "x+1"], [None, None])):
        rows = [{**ROWS[0], "answer": answer} for answer in answers]
        write_parquet(tmp_path, rows, f"train-{number:05d}-of-00003.parquet")
    problems = table(path=str(tmp_path))
    assert len(problems) == 6
    assert [problems[i].answer for i in range(4)] == ["3", "12", "A", "x+1"]
    with pytest.raises(
        ProblemError, match="problem train-4 of test: the reference answer is empty"
    ):
        problems[4]


def test_a_column_that_one_shard_lacks_is_refused_with_both_shards(tmp_path):
    write_parquet(tmp_path, ROWS, "train-00000-of-00002.parquet")
    rows = [{key: value for key, value in row.items() if key != "answer"} for row in ROWS]
    write_parquet(tmp_path, rows, "train-00001-of-00002.parquet")
    with pytest.raises(ValueError, match=r"train-00000.*has a column 'answer' and .*train-00001"):
        len(table(path=str(tmp_path)))


@pytest.mark.parametrize("folder", [".", "data"])
@pytest.mark.parametrize(
    ("here", "missing"),
    [
        ((0,), "holds 1 of the 3 files .*train-00001-of-00003.parquet, train-00002-of"),
        ((0, 2), "holds 2 of the 3 files .*missing: train-00001-of-00003.parquet"),
        ((1, 3), "holds 2 of the 3 files .*missing: train-00002-of-00003.parquet"),
    ],
)
def test_a_shard_that_is_missing_is_named_before_anything_is_read(tmp_path, folder, here, missing):
    for number in here:
        write_parquet(tmp_path, name=f"{folder}/train-{number:05d}-of-00003.parquet")
    with pytest.raises(ValueError, match=missing):
        table(path=str(tmp_path)).preflight()
    alone = tmp_path / folder / f"train-{here[0]:05d}-of-00003.parquet"
    assert len(table(path=str(alone))) == 3


def test_shards_of_two_downloads_and_of_another_split_are_told_apart(tmp_path):
    for number in (1, 2):  # counted from 1
        write_parquet(tmp_path, name=f"train-0000{number}-of-00002.parquet")
    write_parquet(tmp_path, name="train-hard-00000-of-00001.parquet")
    assert len(table(path=str(tmp_path))) == 6
    write_parquet(tmp_path, name="train-00000-of-00001.parquet")
    with pytest.raises(ValueError, match="cut into 1 and into 2 files"):
        table(path=str(tmp_path)).preflight()


def test_the_original_virl39k_layout_reads_paths_and_unwraps_boxed_answers(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(png())
    row = {
        "question": "<image>Area?",
        "answer": "\\boxed{\\frac{1}{2}}",
        "image": ["images/a.jpg"],
        "qid": "q-7",
    }
    write_parquet(tmp_path, [row], "39Krelease.parquet")
    problem = table(
        path=str(tmp_path / "39Krelease.parquet"),
        question_column="question",
        images_column="image",
        id_column="qid",
    )[0]
    assert (problem.id, problem.answer) == ("q-7", "\\frac{1}{2}")
    assert problem.images[0].size == (30, 20)


def test_json_lines_with_image_paths_and_numbers_as_answers(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    rows = [
        {"problem": "<image>How many?", "answer": 3, "images": "a.png", "id": 17},
        {"problem": "Text only?", "answer": "yes", "images": None, "id": 18},
    ]
    problems = table(path=str(write_jsonl(tmp_path, rows)), id_column="id")
    assert (problems[0].answer, problems[0].id) == ("3", "17")
    assert problems[0].images[0].getpixel((0, 0)) == (255, 0, 0)
    assert problems[1].images == ()


def test_a_line_of_json_may_hold_what_other_programs_call_a_line_end(tmp_path):
    row = {"problem": "One\u2028two\x85three?", "answer": "1", "images": []}
    (tmp_path / "train.jsonl").write_bytes(json.dumps(row, ensure_ascii=False).encode() + b"\r\n")
    assert table(path=str(tmp_path))[0].question.startswith(row["problem"])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252"])
def test_text_in_another_encoding_is_named_with_its_file_and_the_remedy(tmp_path, encoding):
    rows = [{"problem": "How large is the circle?", "answer": "1"}] * 3
    rows.append({"problem": "Wie groß ist der Kreis?", "answer": "1"})
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "train.jsonl").write_bytes(text.encode(encoding))
    with pytest.raises(ValueError, match=r"train\.jsonl is no text in UTF-8: .*iconv -f") as error:
        len(table(path=str(tmp_path)))
    wide = encoding.startswith("utf")
    assert ("looks like UTF-16" if wide else "line 4 holds the byte 0xdf") in str(error.value)


def test_a_mark_of_the_byte_order_before_the_first_line_is_no_part_of_it(tmp_path):
    (tmp_path / "train.jsonl").write_text(json.dumps(ROW_OF_TEXT), encoding="utf-8-sig")
    assert table(path=str(tmp_path))[0].answer == "2"


ROW_OF_TEXT = {"problem": "One and one?", "answer": "2", "images": None}


def hub_dataset(rows=ROWS, **extra_columns):
    features = datasets.Features(
        {
            "images": datasets.List(datasets.Image()),
            "problem": datasets.Value("string"),
            "answer": datasets.Value("string"),
            **{name: datasets.Value("string") for name in extra_columns},
        }
    )
    rows = [{**row, **extra_columns} for row in rows]
    return datasets.Dataset.from_list(rows, features=features)


def test_a_hub_data_set_reads_like_a_local_one(monkeypatch):
    asked = {}

    def load_dataset(hub_id, **kwargs):
        asked.update(kwargs, hub_id=hub_id)
        # The letter in ground_truth must never be taken for the answer.
        return hub_dataset(ground_truth="B")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("papo.data.table.check_hub", lambda *args, **kwargs: None)
    problems = table(hub_id="hiyouga/geometry3k", revision="abc", split="validation")
    assert [problems[i].answer for i in range(3)] == ["3", "A", "2"]
    assert problems[1].images[1].getpixel((0, 0)) == (0, 128, 0)
    named = {"hub_id": "hiyouga/geometry3k", "name": None}
    assert asked == {**named, "revision": "abc", "split": "validation"}


def test_a_published_split_of_another_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: hub_dataset())
    monkeypatch.setattr("papo.data.table.check_hub", lambda *args, **kwargs: None)
    known = {
        "hub_id": "hiyouga/geometry3k",
        "num_rows": {"train": 4, "validation": 3, "rest": None},
    }
    with pytest.raises(ValueError, match=r"published with 4 problems; got 3.*data\.num_rows=null"):
        len(table(**known))
    for split in ("validation", "train[:3]", "rest"):
        assert len(table(**known, split=split)) == 3
    assert len(table(**known, split="validation", limit=2)) == 2
    # A copy of one's own may hold fewer.
    assert len(table(**known, path=str(write_parquet(tmp_path)))) == 3


def test_rows_without_an_id_are_numbered(tmp_path):
    ids = ({"id": "mine"}, {}, {"id": None}, {"id": float("nan")}, {"id": ""}, {"id": 6.0})
    rows = [{**ROW_OF_TEXT, **one} for one in ids]
    problems = table(path=str(write_jsonl(tmp_path, rows)), id_column="id")
    found = [problems[i].id for i in range(len(problems))]
    assert found == ["mine", "train-1", "train-2", "train-3", "train-4", "6"]
    assert found == [problems.problem_id(i) for i in range(len(problems))]


def test_the_commit_of_a_hub_data_set_is_known(tmp_path, monkeypatch):
    commit = "37e4933" + "0" * 33
    dataset = hub_dataset()
    dataset.info.download_checksums = {
        f"hf://datasets/hiyouga/geometry3k@{commit}/data/train-0.parquet": {"num_bytes": 1}
    }
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: dataset)
    monkeypatch.setattr("papo.data.table.check_hub", lambda *args, **kwargs: None)
    assert table(hub_id="hiyouga/geometry3k").resolved_revision == commit
    dataset.info.download_checksums = None
    assert table(hub_id="hiyouga/geometry3k").resolved_revision is None
    assert table(path=str(write_parquet(tmp_path))).resolved_revision is None


def test_a_path_wins_over_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: pytest.fail("asked the hub"))
    assert len(table(path=str(write_parquet(tmp_path)), hub_id="hiyouga/geometry3k")) == 3


def test_limit_reads_the_first_problems(tmp_path):
    problems = table(path=str(write_parquet(tmp_path)), limit=2)
    assert len(problems) == 2
    with pytest.raises(IndexError):
        problems[2]


def test_truth_columns_are_taken_where_the_table_has_them(tmp_path):
    write_parquet(tmp_path, [{**ROWS[0], "facts": ["Equals(a, 3)"]}])
    problem = table(path=str(tmp_path), truth_columns=("facts", "text_facts"))[0]
    assert problem.truth == {"facts": ["Equals(a, 3)"]}


def test_a_question_that_already_ends_with_the_suffix_keeps_one(tmp_path):
    write_parquet(tmp_path, [{**ROWS[0], "problem": f"<image>How many? {SUFFIX}"}])
    assert table(path=str(tmp_path))[0].question.count(SUFFIX) == 1


def test_transparent_pictures_are_flattened_on_white(tmp_path):
    stored = {"bytes": png((0, 0, 0, 0), mode="RGBA"), "path": "a.png"}
    image = table(path=str(write_parquet(tmp_path, [{**ROWS[0], "images": [stored]}])))[0].images[0]
    assert (image.mode, image.getpixel((0, 0))) == ("RGB", (255, 255, 255))


@pytest.mark.skipif(not GEOMETRY3K.is_dir(), reason="needs ../shared/geometry3k")
def test_every_problem_of_the_local_geometry3k_is_usable():
    problems = table(
        path=str(GEOMETRY3K), id_column="problem_id", truth_columns=("facts", "text_facts")
    )
    problems.preflight()
    usable, report = problems.usable(lambda problem: len(problem.images))
    assert (len(usable), report.kept, report.dropped) == (2002, 2002, {})
    first = usable[0]
    assert first.id == "0"
    assert first.answer == "15"
    assert first.question.startswith("<image>\\triangle R S T")
    assert first.truth["facts"][0] == "Equals(LengthOf(Line(T, R)), x+21)"
    assert np.asarray(first.images[0]).ndim == 3


# Bad input


def broken(change):
    return {**ROWS[0], **change}


@pytest.mark.parametrize(
    ("row", "reason", "message"),
    [
        (
            broken({"images": [{"bytes": b"no picture", "path": "x.png"}]}),
            "broken_image",
            "x.png is not a picture",
        ),
        (
            broken({"images": [{"bytes": png()[:60], "path": "x.png"}]}),
            "broken_image",
            "x.png cannot",
        ),
        (
            broken({"images": [{"bytes": None, "path": "gone.png"}]}),
            "broken_image",
            "gone.png cannot",
        ),
        (broken({"images": []}), "image_markers", "1 <image> markers for 0 images"),
        (broken({"problem": "<image><image>?"}), "image_markers", "2 <image> markers for 1 images"),
        (broken({"answer": " "}), "empty_answer", "the reference answer is empty"),
        (broken({"answer": "\\boxed{ }"}), "empty_answer", "the reference answer is empty"),
        (broken({"answer": None}), "empty_answer", "the reference answer is empty"),
        (broken({"problem": ""}), "empty_question", "the question is empty"),
    ],
)
def test_a_bad_row_says_which_problem_and_what(tmp_path, row, reason, message):
    schema = pa.Table.from_pylist(ROWS[:1]).schema
    pq.write_table(pa.Table.from_pylist([row], schema=schema), tmp_path / "train.parquet")
    with pytest.raises(ProblemError, match=message) as error:
        table(path=str(tmp_path))[0]
    assert error.value.reason == reason
    assert "problem train-0 of test" in str(error.value)


@pytest.mark.parametrize("text", ["What is \ud83d?", "\ude00", "a\ud800\ud800"])
@pytest.mark.parametrize("column", ["problem", "answer", "id"])
def test_half_of_a_character_is_a_broken_text_that_can_be_printed(tmp_path, column, text):
    row = {**ROW_OF_TEXT, "id": "7", column: text}
    problems = table(path=str(write_jsonl(tmp_path, [row])), id_column="id")
    with pytest.raises(ProblemError, match=r"holds \\ud[0-9a-f]{3}, half of a character") as error:
        problems[0]
    assert error.value.reason == "broken_text"
    str(error.value).encode("utf-8")
    whole = {**ROW_OF_TEXT, "problem": "What is \ud83d\ude00?"}
    assert table(path=str(write_jsonl(tmp_path, [whole])))[0].question.startswith("What is 😀?")


@pytest.mark.parametrize(
    "change",
    [
        {"images": ["iVBORw0KGgo" * 200_000]},
        {"images": [{"bytes": None, "path": "data:image/png;base64," + "A" * 2_000_000}]},
        {"images": [{"bytes": b"GIF" * 700_000, "path": None}]},
        {"id": "x" * 2_000_000, "answer": ""},
        {"problem": "\ud800" * 2_000_000},
        {"images": ["a\x1b[31m\n.png"], "id": "\x1b]0;title\x07"},
    ],
)
def test_a_message_never_prints_the_whole_of_a_long_value(tmp_path, change):
    row = {**ROWS[0], "images": ["none.png"], "id": "7", **change}
    # As it comes from a file: JSON has no bytes, parquet no half characters.
    if any(isinstance(image, dict) for image in row["images"]):
        write_parquet(tmp_path, [row])
    else:
        write_jsonl(tmp_path, [row])
    with pytest.raises(ValueError, match="no usable problem is left") as error:
        table(path=str(tmp_path), id_column="id").usable(lambda problem: 1)
    message = str(error.value)
    assert len(message) < 1200
    assert all(character.isprintable() or character == "\n" for character in message)


def test_pictures_in_base64_are_told_what_to_become(tmp_path):
    row = {**ROWS[0], "images": ["iVBORw0KGgo" * 10_000]}
    with pytest.raises(ProblemError, match=r"iVBOR.*110,000 characters.*base64 are not read"):
        table(path=str(write_jsonl(tmp_path, [row])))[0]


def test_an_image_path_cannot_leave_the_data_folder(tmp_path):
    (tmp_path / "secret.png").write_bytes(png())
    folder = tmp_path / "data"
    folder.mkdir()
    for path in ("../secret.png", str(tmp_path / "secret.png")):
        write_jsonl(folder, [{"problem": "<image>?", "answer": "1", "images": [path]}])
        with pytest.raises(ProblemError, match="leaves the data folder"):
            table(path=str(folder))[0]


def test_absolute_paths_into_a_folder_that_is_given_relatively_are_read(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").mkdir()
    picture = tmp_path / "data" / "a.png"
    picture.write_bytes(png())
    (tmp_path / "link").symlink_to(tmp_path / "data")
    row = {"problem": "<image>?", "answer": "1"}
    monkeypatch.chdir(tmp_path / "elsewhere")
    for written in (picture, tmp_path / "link" / "a.png", "a.png", "x/../a.png"):
        write_jsonl(tmp_path / "data", [{**row, "images": [str(written)]}])
        for folder in ("../data", "../link", str(tmp_path / "link"), "../data/train.jsonl"):
            assert table(path=folder)[0].images[0].size == (30, 20), (written, folder)


def test_no_way_of_writing_the_folder_lets_a_path_leave_it(tmp_path, monkeypatch):
    (tmp_path / "data" / "inner").mkdir(parents=True)
    (tmp_path / "data-2").mkdir()
    for outside in ("secret.png", "data-2/secret.png"):
        (tmp_path / outside).write_bytes(png())
    (tmp_path / "link").symlink_to(tmp_path / "data")
    monkeypatch.chdir(tmp_path / "data")
    for written in (
        "../secret.png",
        "inner/../../secret.png",
        str(tmp_path / "secret.png"),
        str(tmp_path / "data-2" / "secret.png"),
        "../data/../secret.png",
    ):
        row = {"problem": "<image>?", "answer": "1", "images": [written]}
        write_jsonl(tmp_path / "data", [row])
        for folder in (".", "../link", str(tmp_path / "data")):
            with pytest.raises(ProblemError, match="leaves the data folder"):
                table(path=folder)[0]


def test_linked_images_inside_the_data_folder_are_read(tmp_path, monkeypatch):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "b1").write_bytes(png())
    folder = tmp_path / "snapshot"
    folder.mkdir()
    (folder / "a.png").symlink_to(tmp_path / "blobs" / "b1")
    monkeypatch.chdir(tmp_path)
    for written in ("./a.png", str(folder / "a.png")):
        write_jsonl(folder, [{"problem": "<image>?", "answer": "1", "images": [written]}])
        for path in (str(folder), "snapshot"):
            assert table(path=path)[0].images[0].size == (30, 20)


def test_a_decompression_bomb_is_a_broken_image(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ProblemError, match="decompression bomb"):
        table(path=str(write_parquet(tmp_path)))[0]


def test_a_missing_folder_names_itself_and_the_override(tmp_path):
    with pytest.raises(ValueError, match=r"no such folder or file: data\.path=.*nowhere"):
        table(path=str(tmp_path / "nowhere"), hub_id="hiyouga/geometry3k").preflight()


def test_a_folder_without_the_split_lists_what_it_holds(tmp_path):
    write_parquet(tmp_path)
    with pytest.raises(ValueError, match=r"no split 'test'.*found train\.parquet.*data\.split="):
        table(path=str(tmp_path), split="test").preflight()


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "train.txt").write_text("problem,answer")
    with pytest.raises(
        ValueError, match=r"neither a folder nor a file of a known kind \(\.parquet"
    ):
        table(path=str(tmp_path / "train.txt")).preflight()


def test_a_truncated_parquet_file_names_the_file(tmp_path):
    file = write_parquet(tmp_path) / "train.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"train\.parquet cannot be read as parquet"):
        len(table(path=str(tmp_path)))


@pytest.mark.parametrize("line", ["{not json", "[1, 2]"])
def test_a_bad_json_line_names_file_and_line(tmp_path, line):
    (tmp_path / "train.jsonl").write_text(f'{{"problem": "a"}}\n\n{line}\n')
    with pytest.raises(ValueError, match=r"train\.jsonl, line 3 is not"):
        len(table(path=str(tmp_path)))


def test_an_empty_table_is_refused(tmp_path):
    (tmp_path / "train.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="holds no problem"):
        len(table(path=str(tmp_path)))


@pytest.mark.parametrize("key", ["question_column", "answer_column"])
def test_a_missing_column_names_those_there_are(tmp_path, key):
    with pytest.raises(ValueError, match=rf"no column 'nope', only .*Set data\.{key}="):
        len(table(path=str(write_parquet(tmp_path)), **{key: "nope"}))


def test_neither_path_nor_hub_id_is_refused():
    with pytest.raises(ValueError, match=r"data\.path=FOLDER or data\.hub_id="):
        table()


@pytest.mark.parametrize("key", ["limit", "max_prompt_tokens", "num_threads"])
def test_counts_below_one_are_refused(key):
    with pytest.raises(ValueError, match=rf"data\.{key} counts from 1; got 0"):
        table(path="anywhere", **{key: 0})


# The hub out of reach


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return tmp_path


def test_offline_without_a_cached_copy_names_data_set_and_override(empty_cache, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        FileNotFoundError, match=r"hiyouga/geometry3k is not in the local cache.*data\.path=FOLDER"
    ):
        table(hub_id="hiyouga/geometry3k").preflight()


@pytest.mark.parametrize(
    "folder", ["datasets/hiyouga___geometry3k", "hub/datasets--hiyouga--geometry3k/snapshots"]
)
def test_a_cached_copy_needs_no_hub(empty_cache, monkeypatch, folder):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (empty_cache / folder).mkdir(parents=True)
    table(hub_id="hiyouga/geometry3k").preflight()


def test_an_unreachable_hub_is_reported(empty_cache, monkeypatch):
    def no_route(*args, **kwargs):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", no_route)
    with pytest.raises(FileNotFoundError, match=r"the hub cannot be reached.*data\.path=FOLDER"):
        len(table(hub_id="hiyouga/geometry3k"))


def test_a_silent_hub_is_given_up_on_in_time(empty_cache, monkeypatch):
    monkeypatch.setattr("papo.storage.hub.ANSWER_SECONDS", 0.2)
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", lambda *a, **k: time.sleep(5))
    started = time.monotonic()
    with pytest.raises(FileNotFoundError, match=r"no answer within 0\.2 s"):
        table(hub_id="hiyouga/geometry3k").preflight()
    assert time.monotonic() - started < 3


def test_an_answering_hub_passes_the_preflight(empty_cache, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", lambda *a, **k: None)
    table(hub_id="hiyouga/geometry3k").preflight()


def test_a_split_the_hub_does_not_have_is_reported(monkeypatch):
    def load_dataset(*args, **kwargs):
        raise ValueError('Unknown split "nope". Should be one of ["train"].')

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("papo.data.table.check_hub", lambda *args, **kwargs: None)
    with pytest.raises(ValueError, match=r'Unknown split "nope".*data\.split='):
        len(table(hub_id="hiyouga/geometry3k", split="nope"))
