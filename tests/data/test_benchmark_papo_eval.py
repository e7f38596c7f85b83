"""The nine sets of PAPO_eval: rows and pictures in every place they may stand; bad ones named."""

import json
import shutil
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data.benchmark_layouts import (
    PUBLISHED_PROMPT,
    ROWS,
    png,
    problems_node,
    write_papo_eval,
    write_zip,
)

from papo.data import PapoEvalProblems, ProblemError

SUFFIX = "Think, then answer in \\boxed{}."
NODE = problems_node("geo3k")
PARQUET = f"{NODE['split']}-00000-of-00001.parquet"


def problems(path, key="geo3k", **changes):
    node = problems_node(key)
    settings = {
        "key": key,
        "split": node["split"],
        "archive": node["archive"],
        "num_rows": len(ROWS),
        "path": None if path is None else str(path),
        "hub_id": "PAPO-Galaxy/PAPO_eval",
        "revision": None,
        "prompt_suffix": SUFFIX,
        "limit": None,
        "max_archive_gb": 1.0,
    }
    return PapoEvalProblems(**{**settings, **changes})


def colours(problem):
    return [image.getpixel((0, 0)) for image in problem.images]


def test_rows_become_problems_with_our_prompt_and_stable_ids(tmp_path):
    source = problems(write_papo_eval(tmp_path, "geo3k"))
    assert len(source) == 4
    first, second = source[0], source[1]
    assert first.question == f"<image>What is the area of the red square?\n\n{SUFFIX}"
    assert (first.id, first.source, first.answer) == ("geo3k:0", "geo3k", "4 \\sqrt { 3 }")
    assert colours(first) == [(255, 0, 0)]
    assert second.question.startswith("<image><image>Which is blue?\nChoices:")
    assert colours(second) == [(0, 128, 0), (0, 0, 255)]
    assert [source.problem_id(index) for index in range(4)] == [f"geo3k:{i}" for i in range(4)]
    assert source.resolved_revision is None


def test_references_in_a_box_are_unboxed(tmp_path):
    source = problems(write_papo_eval(tmp_path, "geo3k", boxed=True))
    assert [source[index].answer for index in range(4)] == [answer for _, answer, _ in ROWS]


@pytest.mark.parametrize(
    "layout",
    [
        {"extracted": True},
        {"parquet_folder": ""},
        {"inner": ""},
        {"inner": "data/images/pictures/"},
        {"inner": "some/folder/pictures/"},
        {"written": "pictures/"},
        {"written": "data\\images\\pictures\\"},
        {"written": "/data/images/pictures/"},
        {"inner": "", "written": "./data/images/"},
    ],
)
def test_pictures_are_found_in_every_layout(tmp_path, layout):
    source = problems(write_papo_eval(tmp_path, "geo3k", **layout))
    assert [colours(source[index])[0] for index in (0, 2, 3)] == [
        (255, 0, 0),
        (255, 255, 255),
        (0, 0, 0),
    ]


@pytest.mark.parametrize("inside", ["data/images", "images"])
def test_a_folder_in_the_layout_of_llama_factory_is_read(tmp_path, inside):
    write_papo_eval(tmp_path, "geo3k", extracted=True)
    (tmp_path / inside).parent.mkdir(exist_ok=True)
    (tmp_path / NODE["archive"]).with_suffix("").rename(tmp_path / inside)
    assert colours(problems(tmp_path)[0]) == [(255, 0, 0)]


def test_several_sets_share_a_folder(tmp_path):
    write_papo_eval(tmp_path, "geo3k")
    write_papo_eval(tmp_path, "wemath", [("Pick.", "C", ["yellow"])])
    assert problems(tmp_path)[0].answer == "4 \\sqrt { 3 }"
    only = problems(tmp_path, "wemath", num_rows=1)[0]
    assert (only.id, only.answer, colours(only)) == ("wemath:0", "C", [(255, 255, 0)])


def test_the_first_problems_are_enough_where_a_limit_says_so(tmp_path):
    source = problems(write_papo_eval(tmp_path, "geo3k"), limit=2)
    assert len(source) == 2
    with pytest.raises(IndexError, match="problem 2 of 2"):
        source[2]
    with pytest.raises(IndexError):
        source[-1]


@pytest.mark.parametrize(
    ("prompt", "question"),
    [
        (f"<image>Area? {PUBLISHED_PROMPT}", "<image>Area?"),
        (f"<image>\nArea?\n\n{PUBLISHED_PROMPT.removesuffix('.')}\n", "<image>Area?"),
        (f"Area? {PUBLISHED_PROMPT}", "<image>Area?"),
        (f"Area of <image>? {PUBLISHED_PROMPT}", "Area of <image>?"),
        (f"<image>{PUBLISHED_PROMPT}", "<image>"),
        ("<image>Area?", "<image>Area?"),
        (
            "<image>You first think through something. What then?",
            "<image>You first think through something. What then?",
        ),
        (
            f"<image>You first think through it. Why? {PUBLISHED_PROMPT}",
            "<image>You first think through it. Why?",
        ),
    ],
)
def test_the_published_prompt_and_the_leading_markers_are_replaced(tmp_path, prompt, question):
    write_papo_eval(tmp_path, "geo3k", ROWS[:1])
    rewrite(tmp_path, lambda row: row["messages"][0].update(content=prompt))
    assert problems(tmp_path, num_rows=1)[0].question == f"{question}\n\n{SUFFIX}"


def rewrite(folder, change):
    file = folder / "data" / PARQUET
    rows = pq.read_table(file).to_pylist()
    for row in rows:
        change(row)
    pq.write_table(pa.Table.from_pylist(rows), file)


# Bad input


def test_another_number_of_rows_names_benchmark_numbers_and_key(tmp_path):
    source = problems(write_papo_eval(tmp_path, "geo3k"), num_rows=601)
    with pytest.raises(
        ValueError,
        match=r"geo3k should hold 601 problems; got 4.*benchmark\.sets\.geo3k\.problems\.num_rows=4",
    ):
        len(source)


def test_the_number_of_rows_is_that_of_the_whole_file_even_with_a_limit(tmp_path):
    with pytest.raises(ValueError, match="should hold 5 problems; got 4"):
        len(problems(write_papo_eval(tmp_path, "geo3k"), num_rows=5, limit=1))


@pytest.mark.parametrize("column", ["messages", "images"])
def test_a_missing_column_is_named(tmp_path, column):
    write_papo_eval(tmp_path, "geo3k")
    file = tmp_path / "data" / PARQUET
    pq.write_table(pq.read_table(file).drop_columns([column]), file)
    with pytest.raises(ValueError, match=rf"has no column '{column}', only .*benchmark\.revision"):
        len(problems(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row.update(messages="text"),
        lambda row: row["messages"].pop(),
        lambda row: row.update(messages=[{"from": "human", "value": "hi"}]),
        lambda row: row["messages"][1].update(content=None),
        lambda row: row.update(images=[{"bytes": b"x"}]),
    ],
)
def test_rows_of_another_schema_are_refused(tmp_path, change):
    write_papo_eval(tmp_path, "geo3k")
    rewrite(tmp_path, change)
    with pytest.raises(ValueError, match="problem geo3k:0: messages should be a list of turns"):
        len(problems(tmp_path))


def test_missing_pictures_are_counted_and_the_first_is_named(tmp_path):
    write_papo_eval(tmp_path, "geo3k", extracted=True)
    folder = (tmp_path / NODE["archive"]).with_suffix("") / "pictures"
    (folder / "1_1.png").unlink()
    (folder / "3_0.png").unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r"misses 2 of its pictures.*first is \./data/images/pictures/1_1\.png of problem geo3k:1",
    ):
        len(problems(tmp_path))
    assert len(problems(tmp_path, limit=1)) == 1


def test_a_picture_of_another_folder_is_not_taken_for_a_missing_one(tmp_path):
    write_papo_eval(tmp_path, "geo3k", inner="others/")
    with pytest.raises(FileNotFoundError, match="misses 5 of its pictures"):
        len(problems(tmp_path))


def test_a_picture_that_could_be_two_is_missing(tmp_path):
    write_papo_eval(tmp_path, "geo3k", ROWS[:1], inner="a/pictures/")
    write_zip(
        tmp_path / NODE["archive"],
        {"a/pictures/0_0.png": png("red"), "b/pictures/0_0.png": png("blue")},
    )
    with pytest.raises(FileNotFoundError, match="misses 1 of its pictures"):
        len(problems(tmp_path, num_rows=1))


def test_rows_cannot_name_files_outside_of_the_pictures(tmp_path):
    write_papo_eval(tmp_path / "data_set", "geo3k", ROWS[:1])
    (tmp_path / "secret.png").write_bytes(png("red"))
    for written in (
        "../../secret.png",
        "./data/images/../../../secret.png",
        str(tmp_path / "secret.png"),
    ):
        rewrite(tmp_path / "data_set", lambda row, written=written: row.update(images=[written]))
        with pytest.raises(FileNotFoundError, match="misses 1 of its pictures"):
            len(problems(tmp_path / "data_set", num_rows=1))


def test_an_archive_that_escapes_is_refused(tmp_path):
    write_papo_eval(tmp_path, "geo3k")
    write_zip(tmp_path / NODE["archive"], {"../outside.png": png("red")})
    with pytest.raises(ValueError, match=r"hiyouga_geometry3k_images\.zip is refused"):
        len(problems(tmp_path))


def test_a_broken_picture_names_problem_and_file(tmp_path):
    write_papo_eval(tmp_path, "geo3k", extracted=True)
    folder = (tmp_path / NODE["archive"]).with_suffix("") / "pictures"
    (folder / "2_0.png").write_bytes(png("white")[:50])
    source = problems(tmp_path)
    with pytest.raises(ProblemError, match=r"problem geo3k:2: .*2_0\.png cannot be read") as error:
        source[2]
    assert error.value.reason == "broken_image"
    assert source[0].id == "geo3k:0"


@pytest.mark.parametrize("answer", ["", "  ", "\\boxed{ }"])
def test_an_empty_reference_names_the_problem(tmp_path, answer):
    source = problems(write_papo_eval(tmp_path, "geo3k", [("Q", answer, ["red"])]), num_rows=1)
    with pytest.raises(ProblemError, match="problem geo3k:0: the reference answer is empty"):
        source[0]


def test_markers_that_do_not_fit_the_pictures_are_an_error(tmp_path):
    write_papo_eval(tmp_path, "geo3k", [("<image> and <image>?", "1", ["red"])])
    with pytest.raises(ProblemError, match="3 <image> markers for 1 images") as error:
        problems(tmp_path, num_rows=1)[0]
    assert error.value.reason == "image_markers"


def test_a_limit_below_one_is_refused():
    with pytest.raises(ValueError, match=r"benchmark\.limit counts from 1; got 0"):
        problems("anywhere", limit=0)


@pytest.mark.parametrize("missing", ["data", "hiyouga_geometry3k_images.zip"])
def test_missing_files_are_named_with_where_to_put_them(tmp_path, missing):
    write_papo_eval(tmp_path, "geo3k")
    target = tmp_path / missing
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r"looked for .*hiyouga_geometry3k.*Put .* set benchmark\.path=FOLDER",
    ):
        problems(tmp_path).preflight()


# The hub


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty cache, and a function that puts a data set into it as the hub's client does."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    def fill(commit):
        repository = tmp_path / "hub" / "datasets--PAPO-Galaxy--PAPO_eval"
        write_papo_eval(repository / "snapshots" / commit, "geo3k")
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / "main").write_text(commit)

    return fill


COMMIT = "b57d909" + "0" * 33


def test_a_cached_copy_is_read_and_its_commit_recorded(hub_cache, monkeypatch):
    hub_cache(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    source = problems(None)
    source.preflight()
    assert source[0].answer == "4 \\sqrt { 3 }"
    assert source.resolved_revision == COMMIT
    assert problems(None, revision=COMMIT).resolved_revision == COMMIT


def test_offline_the_file_and_its_place_are_named_at_once(hub_cache, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    started = time.monotonic()
    with pytest.raises(
        FileNotFoundError,
        match=r"HF_HUB_OFFLINE is set\. Looked for data/hiyouga_geometry3k-00000-of-00001\.parquet\. "
        r"Put .*hiyouga_geometry3k_images\.zip of PAPO-Galaxy/PAPO_eval into a folder and set "
        r"benchmark\.path=FOLDER",
    ):
        problems(None).preflight()
    assert time.monotonic() - started < 3


def test_a_silent_hub_is_given_up_on_in_time(hub_cache, monkeypatch):
    monkeypatch.setattr("papo.storage.hub.ANSWER_SECONDS", 0.2)
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", lambda *a, **k: time.sleep(5))
    started = time.monotonic()
    with pytest.raises(
        FileNotFoundError, match=r"no answer within 0\.2 s.*Looked for data/hiyouga"
    ):
        len(problems(None))
    assert time.monotonic() - started < 3


def test_only_what_is_not_cached_is_downloaded_at_the_pinned_commit(
    hub_cache, tmp_path, monkeypatch
):
    asked = []

    def download(hub_id, filename, *, repo_type, revision):
        asked.append((hub_id, filename, repo_type, revision))
        hub_cache(COMMIT)
        folder = tmp_path / "hub" / "datasets--PAPO-Galaxy--PAPO_eval" / "snapshots" / COMMIT
        return str(folder / filename)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", lambda *a, **k: None)
    source = problems(None, revision=COMMIT)
    assert source.resolved_revision == COMMIT
    assert asked == [("PAPO-Galaxy/PAPO_eval", f"data/{PARQUET}", "dataset", COMMIT)]


def test_a_download_that_fails_names_the_file(hub_cache, monkeypatch):
    def download(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", lambda *a, **k: None)
    with pytest.raises(
        FileNotFoundError, match=r"data/hiyouga_geometry3k.*cannot be downloaded: no space left"
    ):
        len(problems(None))


def test_a_file_the_hub_does_not_have_lists_what_it_has(hub_cache, monkeypatch):
    from huggingface_hub.errors import RemoteEntryNotFoundError

    def download(*args, **kwargs):
        # Its constructor wants a response of the client's HTTP library.
        raise RemoteEntryNotFoundError.__new__(RemoteEntryNotFoundError)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", lambda *a, **k: None)
    monkeypatch.setattr(
        "huggingface_hub.HfApi.list_repo_files", lambda *a, **k: ["data/geo-0.parquet", "README.md"]
    )
    with pytest.raises(
        FileNotFoundError, match=r"has no file data/hiyouga.*only README\.md, data/geo-0\.parquet"
    ):
        len(problems(None))


def test_what_looks_like_code_in_a_row_stays_text(tmp_path):
    hostile = '{"__class__": "os.system"} {{ 7 * 7 }} $(id) </script>'
    source = problems(
        write_papo_eval(tmp_path, "geo3k", [(hostile, json.dumps([1]), ["red"])]), num_rows=1
    )
    assert source[0].question == f"<image>{hostile}\n\n{SUFFIX}"
    assert source[0].answer == "[1]"
