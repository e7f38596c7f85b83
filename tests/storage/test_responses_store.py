"""What is graded survives a crash at any byte, and nothing is counted twice."""

import json
from dataclasses import replace

import pytest
from evaluation.evaluation_parts import problem, record
from PIL import Image

from papo.storage.files import locked
from papo.storage.responses import FinishedBatch, ResponseStore, problem_identities, read_responses


def store(folder, picture_side=16):
    return ResponseStore(folder, picture_side=picture_side)


def batch(first, records, view="image", num_problems=1):
    return FinishedBatch(
        benchmark="set",
        view=view,
        first_problem=first,
        num_problems=num_problems,
        num_left_out=0,
        num_responses=len(records),
        num_tokens=3 * len(records),
        sample_seconds=0.5,
        grade_seconds=0.25,
    )


def fill(folder, num_batches=3):
    opened = store(folder)
    for first in range(num_batches):
        records = [record(problem_id=f"p{first}", response_index=j) for j in range(2)]
        opened.add(batch(first, records), records)
    return opened


def test_what_was_added_is_read_back(tmp_path):
    fill(tmp_path)
    assert [one.problem_id for one in read_responses(tmp_path)] == [
        "p0",
        "p0",
        "p1",
        "p1",
        "p2",
        "p2",
    ]
    again = store(tmp_path)
    assert again.num_done("set", "image") == 3
    assert again.num_done("set", "blank") == again.num_done("other", "image") == 0
    assert again.batches == fill(tmp_path / "second").batches


def test_text_of_any_kind_stays_on_its_line(tmp_path):
    nasty = 'a\nb\u2028c\x85d\x1ce "quoted", \ud800 \\boxed{1}'
    opened = store(tmp_path)
    records = [record(response=nasty, problem_id="p\r\n1")]
    opened.add(batch(0, records), records)
    assert list(read_responses(tmp_path)) == records
    assert store(tmp_path).num_done("set", "image") == 1


@pytest.mark.parametrize("table", ["responses.jsonl", "batches.csv"])
def test_a_crash_at_any_byte_of_the_last_batch_costs_that_batch_alone(tmp_path, table):
    fill(tmp_path / "two", num_batches=2)
    fill(tmp_path / "three", num_batches=3)
    shorter, longer = ((tmp_path / name / table).read_bytes() for name in ("two", "three"))
    assert longer.startswith(shorter)
    for end in range(len(shorter), len(longer), 7):
        crashed = tmp_path / f"{table}-{end}"
        crashed.mkdir()
        for name in ("responses.jsonl", "batches.csv"):
            # Responses are written before the row that makes them count.
            source = "three" if table == "batches.csv" and name == "responses.jsonl" else "two"
            (crashed / name).write_bytes((tmp_path / source / name).read_bytes())
        (crashed / table).write_bytes(longer[:end])
        opened = store(crashed)
        assert opened.num_done("set", "image") == 2
        assert len(list(read_responses(crashed))) == 4
        records = [record(problem_id="p2", response_index=j) for j in range(2)]
        opened.add(batch(2, records), records)
        for name in ("responses.jsonl", "batches.csv"):
            assert (crashed / name).read_bytes() == (tmp_path / "three" / name).read_bytes()


def test_responses_of_an_unfinished_batch_are_kept_beside(tmp_path):
    opened = fill(tmp_path, num_batches=2)
    finished = (tmp_path / "responses.jsonl").read_bytes()
    assert store(tmp_path).cut is None
    assert not list(tmp_path.glob("*.cut-*"))
    lost = [record(problem_id="p2", response_index=j).to_line() for j in range(2)]
    opened._response_file.append("".join(lost))
    with (tmp_path / "responses.jsonl").open("a") as file:
        file.write('{"half a')
    again = store(tmp_path)
    assert (tmp_path / "responses.jsonl").read_bytes() == finished
    [kept] = tmp_path.glob("responses.jsonl.cut-*")
    assert kept.read_text() == "".join(lost)
    assert str(again.cut) == (
        f"2 lines of responses.jsonl will be written again; as they were, in {kept}"
    )


def test_missing_responses_are_noticed(tmp_path):
    fill(tmp_path)
    file = tmp_path / "responses.jsonl"
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(
        ValueError, match=r"responses\.jsonl holds .* lines and batches\.csv speaks of 6"
    ):
        store(tmp_path)


def test_a_line_that_is_no_record_is_named(tmp_path):
    fill(tmp_path)
    file = tmp_path / "responses.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([lines[0], '{"benchmark": "set"}\n', *lines[2:]]))
    with pytest.raises(ValueError, match=r"responses\.jsonl, line 2"):
        list(read_responses(tmp_path))


def test_problems_are_kept_once_with_small_pictures(tmp_path):
    opened = store(tmp_path)
    opened.keep_problem("set", 3, problem(3, images=2))
    opened.keep_problem("set", 3, problem(3, images=2))
    store(tmp_path).keep_problem("set", 3, problem(3, images=2))
    [line] = (tmp_path / "problems.jsonl").read_text().splitlines()
    kept = json.loads(line)
    assert (kept["benchmark"], kept["problem_id"], kept["answer"]) == ("set", "p3", "3")
    assert kept["question"] == "<image><image>What is 3?"
    assert kept["truth"] == {"index": 3}
    assert len(kept["images"]) == 2
    with Image.open(tmp_path / kept["images"][0]) as picture:
        assert picture.size == (16, 8)
        assert picture.getpixel((0, 0)) == (3, 10, 200)


def test_a_problem_without_picture_and_truth_is_kept_too(tmp_path):
    from papo.types import Problem

    plain = Problem(id="x", question="1+1?", answer="2", images=(), source="test")
    store(tmp_path).keep_problem("set", 0, plain)
    kept = json.loads((tmp_path / "problems.jsonl").read_text())
    assert (kept["images"], kept["truth"]) == ([], None)


@pytest.mark.parametrize("change", [{"question": "another"}, {"answer": "another"}])
def test_a_problem_whose_text_was_changed_meanwhile_is_refused(tmp_path, change):
    known = problem(0)
    store(tmp_path).keep_problem("set", 0, known)
    again = store(tmp_path)
    again.keep_problem("set", 0, known)
    with pytest.raises(ValueError, match="had another question or answer"):
        again.keep_problem("set", 0, replace(known, **change))


def test_a_problem_whose_picture_was_changed_meanwhile_is_refused(tmp_path):
    known = problem(0, images=2)
    store(tmp_path).keep_problem("set", 0, known)
    changed = known.images[1].copy()
    changed.putpixel((39, 19), (0, 10, 201))  # too little to be seen in the picture that is kept
    for pictures in ((known.images[0], changed), known.images[:1], (changed, known.images[0])):
        with pytest.raises(ValueError, match="'p0' of set had another picture when"):
            store(tmp_path).keep_problem("set", 0, replace(known, images=pictures))
    alike = known.images[1].convert("RGBA")
    store(tmp_path).keep_problem("set", 0, replace(known, images=(known.images[0], alike)))


def test_a_folder_begun_without_hashes_of_pictures_goes_on_by_texts(tmp_path):
    known = problem(0)
    store(tmp_path).keep_problem("set", 0, known)
    row = json.loads((tmp_path / "problems.jsonl").read_text())
    del row["image_hashes"]
    (tmp_path / "problems.jsonl").write_text(json.dumps(row) + "\n")
    store(tmp_path).keep_problem("set", 0, replace(known, images=problem(9).images))
    with pytest.raises(ValueError, match="had another question or answer"):
        store(tmp_path).keep_problem("set", 0, replace(known, answer="another"))


def test_the_same_question_about_the_same_picture_is_one_problem_in_every_benchmark(tmp_path):
    assert problem_identities(tmp_path) == {}
    opened, same = store(tmp_path), problem(1)
    opened.keep_problem("set", 1, same)
    opened.keep_problem("part", 0, replace(same, id="other"))
    opened.keep_problem("part", 1, replace(same, id="asks", question="<image>What?"))
    opened.keep_problem("part", 2, replace(same, id="shows", images=problem(2).images))
    found = problem_identities(tmp_path)
    assert found["set", "p1"] == found["part", "other"]
    assert len(set(found.values())) == 3


def test_an_id_names_one_problem_and_an_index_too(tmp_path):
    opened = store(tmp_path)
    opened.keep_problem("set", 0, problem(0))
    opened.keep_problem("other", 0, problem(0))
    with pytest.raises(ValueError, match="two problems with the id 'p0'"):
        opened.keep_problem("set", 1, problem(0))
    with pytest.raises(ValueError, match="problem 0 of set was another one"):
        store(tmp_path).keep_problem("set", 0, problem(7))


@pytest.mark.parametrize("failing_write", [0, 1])
def test_a_full_disk_keeps_what_was_finished_and_says_how_to_go_on(
    tmp_path, monkeypatch, failing_write
):
    opened = fill(tmp_path, num_batches=2)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    writes = []

    def full(_):
        writes.append(None)
        if len(writes) > failing_write:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        records = [record(problem_id="p2")]
        with pytest.raises(OSError, match=r"No space left.*resume=true"):
            opened.add(batch(2, records), records)
        with pytest.raises(OSError, match=r"No space left.*resume=true"):
            opened.keep_problem("set", 2, problem(2))
    again = store(tmp_path)
    assert again.num_done("set", "image") == 2
    for name, content in before.items():
        assert (tmp_path / name).read_bytes() == content


def test_a_second_process_is_refused(tmp_path):
    with (
        locked(tmp_path),
        pytest.raises(ValueError, match="another process writes to"),
        locked(tmp_path),
    ):
        pass
