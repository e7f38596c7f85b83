"""Pictures are found and shown whatever their column is called and whether the question has markers."""

import datasets
import pytest
from data.test_problem_table import SUFFIX, png, table, write_jsonl, write_parquet

from papo.data import ProblemError, notes_on

RED, BLUE = ({"bytes": png(colour), "path": None} for colour in ("red", "blue"))
PLACED = (
    "questions with pictures have no <image> marker: their pictures are placed before the question"
)


def rows_of(column, *cells, question="How many?"):
    return [{"problem": question, "answer": "3", column: cell} for cell in cells]


def test_a_picture_of_a_question_without_a_marker_stands_before_it_and_is_counted(tmp_path):
    problems = table(path=str(write_parquet(tmp_path, rows_of("images", RED, BLUE))))
    assert problems[0].question == f"<image>How many?\n\n{SUFFIX}"
    assert problems[0].images[0].getpixel((0, 0)) == (255, 0, 0)
    assert problems.census.notes == (f"2 of 2 {PLACED}",)
    assert (problems.census.problems, problems.census.with_pictures) == (2, 2)


def test_several_pictures_stand_before_it_in_their_order(tmp_path):
    problem = table(path=str(write_parquet(tmp_path, rows_of("images", [RED, BLUE]))))[0]
    assert problem.question.startswith("<image><image>How many?")
    colours = [image.getpixel((0, 0)) for image in problem.images]
    assert colours == [(255, 0, 0), (0, 0, 255)]


def test_the_count_is_of_the_questions_that_have_pictures(tmp_path):
    rows = [
        *rows_of("images", [RED], [RED, BLUE], []),
        *rows_of("images", [RED], question="<image>How many?"),
        *rows_of(
            "images", [RED, BLUE], question="<image>How many?"
        ),  # left out: a marker is missing
        *rows_of("images", [], question="<image>How many?"),
    ]
    problems = table(path=str(write_parquet(tmp_path, rows)))
    assert problems.census.notes == (f"2 of 3 {PLACED}",)
    assert problems.census.with_pictures == 4
    _, report = problems.usable(lambda problem: 1)
    assert (report.kept, report.with_pictures) == (4, 3)
    assert report.dropped == {"image_markers": 2}
    assert "1 <image> markers for 2 images" in report.summary()
    assert "1 <image> markers for 0 images" in report.summary()
    assert "kept 4 of 6 problems, 3 with pictures" in report.summary()
    assert table(path=str(tmp_path), limit=1).census.notes == (f"1 of 1 {PLACED}",)


def test_nothing_is_said_where_every_marker_stands_in_its_question(tmp_path):
    rows = rows_of("images", [RED], [BLUE], question="<image>How many?")
    assert table(path=str(write_parquet(tmp_path, rows))).census.notes == ()


@pytest.mark.parametrize(("there", "configured"), [("image", "images"), ("images", "image")])
@pytest.mark.parametrize("kind", ["parquet", "shards", "jsonl", "hub"])
def test_image_and_images_are_found_under_either_name(
    tmp_path, monkeypatch, there, configured, kind
):
    settings = {"path": str(tmp_path), "images_column": configured}
    rows = rows_of(there, "a.png" if kind == "jsonl" else RED, question="<image>How many?")
    if kind == "jsonl":
        (tmp_path / "a.png").write_bytes(png())
        write_jsonl(tmp_path, rows)
    elif kind == "shards":
        for number in (0, 1):
            write_parquet(tmp_path, rows, f"train-0000{number}-of-00002.parquet")
    else:
        write_parquet(tmp_path, rows)
    if kind == "hub":
        settings = {"hub_id": "some/data", "images_column": configured}
        monkeypatch.setattr(
            datasets, "load_dataset", lambda *a, **k: datasets.Dataset.from_list(rows)
        )
        monkeypatch.setattr("papo.data.table.check_hub", lambda *args, **kwargs: None)
    problems = table(**settings)
    assert problems[len(problems) - 1].images[0].getpixel((0, 0)) == (255, 0, 0)
    (note,) = notes_on(problems)
    assert f"has no column '{configured}'; the pictures are read from its column '{there}'" in note
    assert problems.census.with_pictures == len(problems)


@pytest.mark.parametrize("configured", ["picture", "images", "image"])
@pytest.mark.parametrize("write", [write_parquet, write_jsonl])
def test_a_column_of_pictures_that_is_not_there_is_refused_like_the_others(
    tmp_path, configured, write
):
    write(tmp_path, rows_of("figure", "a.png"))
    with pytest.raises(
        ValueError,
        match=rf"no column '{configured}', only .*figure.* Set data\.images_column= to that of the "
        r"pictures, or data\.images_column=null where there are none",
    ):
        len(table(path=str(tmp_path), images_column=configured))


def test_another_name_than_the_two_is_taken_as_it_is_written(tmp_path):
    write_parquet(tmp_path, rows_of("image", RED))
    with pytest.raises(ValueError, match="no column 'picture', only problem, answer, image"):
        len(table(path=str(tmp_path), images_column="picture"))


def test_of_both_columns_the_configured_one_is_read_and_the_other_is_named(tmp_path):
    rows = [{**row, "image": BLUE} for row in rows_of("images", [RED], question="<image>?")]
    problems = table(path=str(write_parquet(tmp_path, rows)))
    assert problems[0].images[0].getpixel((0, 0)) == (255, 0, 0)
    (note,) = problems.census.notes
    assert "has a column 'image' too, which is not read" in note
    assert table(path=str(tmp_path), images_column="image")[0].images[0].getpixel((0, 0)) == (
        (0, 0, 255)
    )


@pytest.mark.parametrize("write", [write_parquet, write_jsonl])
def test_a_data_set_of_texts_alone_says_so(tmp_path, write):
    write(tmp_path, [{"problem": "1+1?", "answer": "2"}, {"problem": "<image>?", "answer": "2"}])
    problems = table(path=str(tmp_path), images_column=None)
    assert problems[0].images == ()
    assert (problems.census.with_pictures, problems.census.notes) == (0, ())
    with pytest.raises(ProblemError, match="1 <image> markers for 0 images"):
        problems[1]


def test_pictures_are_counted_without_being_read(tmp_path):
    cells = [[{"bytes": b"no picture", "path": None}] * 2, None, []]
    problems = table(path=str(write_parquet(tmp_path, rows_of("images", *cells))))
    assert (problems.census.problems, problems.census.with_pictures) == (3, 1)


def test_what_draws_its_problems_has_nothing_to_say():
    assert notes_on([]) == ()
