"""Where the evidence is: boxes that a row names, and the labels of an annotated diagram."""

import json
from pathlib import Path

import numpy as np
import pytest
from conf.composing import composed
from data.test_problem_table import table
from PIL import Image, ImageDraw, ImageFont

from papo.data import DiagramLabels, ProblemError
from papo.data.diagram_labels import written_in

GEOMETRY3K = Path(__file__).parents[2] / ".." / "shared" / "geometry3k"
WIDTH, HEIGHT = 300, 200
FACTS = [
    "Equals(LengthOf(Line(A, B)), 12)",
    "Equals(MeasureOf(Angle(A, B, C)), MeasureOf(angle 3))",
]
PLACES = {"A": (20, 150), "B": (250, 150), "C": (250, 20), "12": (130, 165), "3": (190, 125)}


def read(folder, rows, **settings):
    Image.new("RGB", (100, 50), "white").save(folder / "a.png")
    (folder / "train.jsonl").write_text(
        "\n".join(
            json.dumps({"problem": "q", "answer": "1", "images": ["a.png"]} | row) for row in rows
        )
    )
    return table(path=str(folder), **{"boxes_column": "boxes"} | settings)


def diagram(labels, *, joined=()):
    """Three lines and what is written beside them; what is `joined` touches a line."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(picture)
    pen.line([(30, 145), (245, 145), (245, 35), (30, 145)], fill="black", width=2)
    for text, place in labels.items():
        pen.text(place, text, fill="black", font=ImageFont.load_default(size=14))
    for text in joined:
        pen.line([labels[text], (100, 145)], fill="black", width=3)
        x, y = labels[text]
        pen.rectangle((x, y, x + 8, y + 12), fill="black")
    return picture


def finder(**changes):
    settings = {
        "facts_column": "facts", "positions_column": "points", "point_side": 0.2, "ink_below": 128,
        "largest": 0.08, "smallest": 0.02, "gap": 0.02, "margin": 0.01,
    }  # fmt: skip
    return DiagramLabels(**settings | changes)


@pytest.mark.parametrize(
    ("stored", "read_as"),
    [
        ({"a": [1, 2, 30, 40], "b": None}, {"a": (1, 2, 30, 40)}),
        ([[0, 0, 99, 50], [1.2, 2.7, 3.1, 4.0]], {"0": (0, 0, 99, 50), "1": (1, 2, 4, 4)}),
        (None, None),
        ({}, None),
    ],
)
def test_a_row_names_its_boxes(tmp_path, stored, read_as):
    (one,) = read(tmp_path, [{"boxes": stored}])
    assert (one.truth or {}).get("boxes") == read_as


@pytest.mark.parametrize(
    "stored",
    [
        [[0, 0, 100, 50]],  # all of it
        [[0, 0, 101, 20]],
        [[-1, 0, 10, 20]],
        [[0, 30, 10, 20]],
        [[5, 5, 5, 9]],
        [[0, 0, float("nan"), 20]],
        [[0, 0, float("inf"), 20]],
        [[0, 0, True, 20]],
        [[0, 0, 10]],
        [0, 0, 10, 20],
        {"a": "0,0,10,20"},
        "boxes",
    ],
)
def test_a_box_that_is_not_in_its_picture_is_refused_by_name(tmp_path, stored):
    with pytest.raises(
        ProblemError, match=r"problem train-0 of test: .*'boxes'.*data\.boxes_column=null"
    ) as error:
        read(tmp_path, [{"boxes": stored}])[0]
    assert error.value.reason == "broken_boxes"
    assert read(tmp_path, [{"boxes": stored}], boxes_column=None)[0].truth is None


def test_boxes_are_of_one_picture(tmp_path):
    several = read(tmp_path, [{"images": ["a.png", "a.png"], "boxes": [[0, 0, 5, 5]]}])
    with pytest.raises(ProblemError, match="the problem has 2"):
        several[0]


def test_all_that_is_written_in_a_diagram_is_boxed_and_no_line():
    picture = diagram(PLACES)
    boxes = finder()({"facts": FACTS}, [picture])
    assert len(boxes) == 5
    left = np.asarray(picture.convert("L")).copy()
    for x0, y0, x1, y1 in boxes.values():
        left[y0:y1, x0:x1] = 255
    assert (left == np.asarray(diagram({}).convert("L"))).all()


@pytest.mark.parametrize(
    ("row", "picture"),
    [
        ({"facts": FACTS}, diagram(PLACES, joined="3")),
        ({"facts": [*FACTS, "Equals(LengthOf(Line(B, C)), 4x-7)"]}, diagram(PLACES)),
        ({"facts": []}, diagram(PLACES)),
        ({}, diagram(PLACES)),
    ],
)
def test_where_the_annotation_has_more_letters_than_were_found_nothing_is_known(row, picture):
    assert finder()(row, [picture]) is None


def test_a_point_whose_place_is_known_has_a_square_around_it():
    points = {"A": [30, 145], "B": [245.0, 145], "C": [245, 35], "D": None}
    # The letter of A touches a line.
    picture = diagram(PLACES, joined="A")
    assert finder()({"facts": FACTS}, [picture]) is None
    boxes = finder()({"facts": FACTS, "points": points}, [picture])
    assert boxes["point_A"] == (0, 115, 60, 175)
    assert boxes["point_B"] == (215, 115, 275, 175)
    assert sorted(name for name in boxes if name.startswith("point")) == [
        "point_A",
        "point_B",
        "point_C",
    ]
    for place in ([301, 5], [5, float("nan")], [5], "5,5"):
        with pytest.raises(ProblemError, match=r"'points'.*300 x 200; got A: "):
            finder()({"facts": FACTS, "points": {"A": place}}, [picture])


def test_values_and_points_are_read_from_logic_forms():
    facts = [
        "Equals(LengthOf(Line(T, R)), x+21)",
        "Equals(LengthOf(Line(T, R)), x+21)",
        "Equals(LengthOf(Line(Q, A)), LengthOf(Line(R, A)))",
        "Equals(MeasureOf(Angle(J, C, I)), MeasureOf(angle 2))",
        "PointLiesOnCircle(E, Circle(B, radius_2_0))",
    ]
    points, values = written_in(facts)
    assert points == set("TRQAJCIEB")
    assert {value for _, value in values} == {"x+21", "MeasureOf(angle 2)"}


@pytest.mark.parametrize(
    ("name", "value"), [("largest", 0.0), ("gap", 1.0), ("ink_below", 0), ("margin", -0.1)]
)
def test_impossible_sizes_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        finder(**{name: value})


@pytest.mark.skipif(not GEOMETRY3K.is_dir(), reason="needs ../shared/geometry3k")
def test_real_diagrams_have_boxes_that_hide_their_labels():
    settings = composed("train", ["data=geometry3k"]).data
    sizes = {key: value for key, value in settings.label_boxes.items() if not key.startswith("_")}
    problems = table(
        path=str(GEOMETRY3K),
        split="validation",
        truth_columns=("facts",),
        boxes_column="boxes",
        label_boxes=DiagramLabels(**sizes),
        limit=24,
    )
    known = [one for one in problems if "boxes" in one.truth]
    assert len(known) == 14
    for one in known:
        boxes = one.truth["boxes"].values()
        area = sum((right - left) * (bottom - top) for left, top, right, bottom in boxes)
        assert 0 < area < 0.05 * one.images[0].width * one.images[0].height
