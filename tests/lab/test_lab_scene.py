import hashlib
import json
import math
from collections import Counter

import numpy as np
import PIL
import pytest

from papo.lab import WARM_START, PerceptionLabProblems, held_out_sets
from papo.lab.scene import IMAGE_SIZE, draw_scene, prior_probabilities, scene_numbers
from papo.lab.shapes import NUMBERS, QUADRILATERAL, RECTANGLE, SHAPES
from papo.types import IMAGE_MARKER

SHIPPED_FACTS = "cc00df574b4ad540752664fefecb95c022ea5ab2008f914ae0fb39a45c9b5053"
SHIPPED_PIXELS = "6278815741514d86695fe78f28ce79a9b1744218b53bd75271fcccbf4370f2f2"


def make_problems(**changes):
    settings = {
        "seed": 3,
        "prior": "training",
        "zipf_exponent": 1.0,
        "difficulty": 1.0,
        "size": 10_000,
    }
    return PerceptionLabProblems(**{**settings, **changes})


def test_a_problem_depends_on_seed_and_index_alone():
    forward = [make_problems()[i] for i in range(5)]
    problems = make_problems(size=5)
    backward = [problems[i] for i in reversed(range(5))][::-1]
    for one, other in zip(forward, backward, strict=True):
        assert one.id == other.id
        assert one.truth == other.truth
        assert one.images[0].tobytes() == other.images[0].tobytes()


def test_another_seed_or_index_gives_another_picture():
    pictures = {
        make_problems(seed=seed)[i].images[0].tobytes() for seed in (3, 4) for i in range(20)
    }
    assert len(pictures) == 40


def test_the_truth_is_the_arithmetic_of_what_is_asked():
    results = {
        "area": lambda a, b: a * b,
        "sum": lambda a, b: a + b,
        "difference": lambda a, b: max(a, b) - min(a, b),
    }
    problems = make_problems()
    for i in range(100):
        problem = problems[i]
        truth = problem.truth
        assert truth["a"] in NUMBERS
        assert truth["b"] in NUMBERS
        assert truth["operation"] in problem.question
        assert problem.question.count(IMAGE_MARKER) == len(problem.images) == 1
        assert truth["result"] == results[truth["operation"]](truth["a"], truth["b"])
        assert problem.answer == str(truth["result"])


@pytest.mark.parametrize(("side", "other_numbers"), [("a", (4, 8)), ("b", (3, 9))])
def test_a_box_holds_all_the_ink_of_its_number(side, other_numbers):
    # Two clean drawings from the same random state differ in one written number alone, so every
    # differing pixel lies in the box of that side: a below the rectangle, b to its right.
    for state in range(20):
        one, boxes = draw_scene(np.random.default_rng(state), RECTANGLE, 3, 8, difficulty=0.0)
        other, other_boxes = draw_scene(
            np.random.default_rng(state), RECTANGLE, *other_numbers, difficulty=0.0
        )
        differs = (np.asarray(one) != np.asarray(other)).any(axis=-1)
        left, top = (min(boxes[side][i], other_boxes[side][i]) for i in (0, 1))
        right, bottom = (max(boxes[side][i], other_boxes[side][i]) for i in (2, 3))
        assert (top > 36) if side == "a" else (left > 36)
        assert differs[top:bottom, left:right].any()
        differs[top:bottom, left:right] = False
        assert not differs.any()


@pytest.mark.parametrize(
    ("side", "where"),
    [
        ("a", (18, 38, 56, 56)),
        ("b", (38, 0, 56, 38)),
        ("c", (0, 0, 38, 18)),
        ("d", (0, 18, 18, 56)),
    ],
)
def test_each_side_of_a_quadrilateral_is_written_beside_it(side, where):
    index = QUADRILATERAL.sides.index(side)
    for state in range(20):
        pictures = []
        for number in (3, 8):
            numbers = [5] * 4
            numbers[index] = number
            image, boxes = draw_scene(
                np.random.default_rng(state), QUADRILATERAL, *numbers, difficulty=0.0
            )
            pictures.append(np.asarray(image))
            left, top, right, bottom = boxes[side]
            assert where[0] <= left < right <= where[2]
            assert where[1] <= top < bottom <= where[3]
        differs = (pictures[0] != pictures[1]).any(axis=-1)
        assert differs.any()
        left, top, right, bottom = where
        differs[top:bottom, left:right] = False
        assert not differs.any()


def overlap(one, other):
    return max(one[0], other[0]) < min(one[2], other[2]) and max(one[1], other[1]) < min(
        one[3], other[3]
    )


def test_labels_of_a_quadrilateral_never_cover_one_another():
    problems = make_problems(shape="quadrilateral", seed=1)
    for i in range(300):
        boxes = list(problems[i].truth["boxes"].values())
        assert len(boxes) == 4
        assert not any(overlap(boxes[i], boxes[j]) for i in range(4) for j in range(i))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_box_lies_in_the_picture_at_full_difficulty(shape):
    problems = make_problems(shape=shape)
    for i in range(200):
        problem = problems[i]
        assert problem.images[0].size == (IMAGE_SIZE, IMAGE_SIZE)
        for left, top, right, bottom in problem.truth["boxes"].values():
            assert 0 <= left < right <= IMAGE_SIZE
            assert 0 <= top < bottom <= IMAGE_SIZE


def test_difficulty_adds_noise_and_lowers_contrast():
    def spread(difficulty):
        pixels = [
            np.asarray(make_problems(difficulty=difficulty)[i].images[0], dtype=float)[..., 0]
            for i in range(30)
        ]
        # The median absolute deviation sees the noise of the board, not the few strokes.
        noise = np.mean([np.median(np.abs(p - np.median(p))) for p in pixels])
        return noise, np.mean([np.percentile(p, 99) - np.median(p) for p in pixels])

    (clean_noise, clean_contrast), (hard_noise, hard_contrast) = spread(0.0), spread(1.0)
    assert clean_noise == 0.0
    # A normal deviate of standard deviation 12 has a median absolute deviation of 0.6745 * 12.
    assert hard_noise == pytest.approx(8.1, abs=1.0)
    assert hard_contrast < clean_contrast


def test_prior_probabilities_by_hand():
    # Ranks 1..8 under 1/rank: the harmonic number of 8 is 761/280 = 2.717857.
    table = prior_probabilities("area", "a", prior="training", zipf_exponent=1.0)
    first, second = RECTANGLE.operations["area"].prior_order["a"][:2]
    assert table[first] == pytest.approx(280 / 761)
    assert table[second] == pytest.approx(140 / 761)
    assert math.fsum(table.values()) == pytest.approx(1.0)
    uniform = prior_probabilities("area", "a", prior="uniform", zipf_exponent=1.0)
    assert set(uniform.values()) == {1 / 8}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_every_order_of_the_prior_holds_each_number_once_and_depends_on_the_question(shape):
    for asked in shape.operations.values():
        assert tuple(asked.prior_order) == shape.sides
        for order in asked.prior_order.values():
            assert sorted(order) == list(NUMBERS)
    for side in shape.sides:
        orders = {asked.prior_order[side] for asked in shape.operations.values()}
        assert len(orders) == len(shape.operations)


def test_the_rectangle_is_the_world_that_ships():
    """The shipped policy and every published number belong to these very scenes."""
    facts, pixels = hashlib.sha256(), hashlib.sha256()
    for prior in ("training", "uniform"):
        for difficulty in (0.0, 0.5, 1.0):
            for problem in make_problems(seed=5, prior=prior, difficulty=difficulty, size=50):
                truth = {**problem.truth, "boxes": None}
                known = [problem.id, problem.question, problem.answer, truth]
                facts.update(json.dumps(known).encode())
                pixels.update(problem.images[0].tobytes())
                pixels.update(json.dumps(problem.truth["boxes"]).encode())
    assert facts.hexdigest() == SHIPPED_FACTS
    versions = json.loads((WARM_START / "recipe.json").read_text())["versions"]
    # Another release may draw the font or the noise differently.
    if (PIL.__version__, np.__version__) == (versions["pillow"], versions["numpy"]):
        assert pixels.hexdigest() == SHIPPED_PIXELS


def test_a_quadrilateral_is_asked_in_three_ways_by_hand():
    problems = list(make_problems(shape="quadrilateral", size=60))
    results = {
        "perimeter": lambda a, b, c, d: a + b + c + d,
        "horizontal": lambda a, b, c, d: a * c + b + d,
        "vertical": lambda a, b, c, d: b * d + a + c,
    }
    assert {problem.truth["operation"] for problem in problems} == set(results)
    for problem in problems:
        truth = problem.truth
        numbers = scene_numbers(truth)
        assert list(numbers) == ["a", "b", "c", "d"]
        assert truth["result"] == results[truth["operation"]](**numbers) <= 99
        assert problem.answer == str(truth["result"])
        assert problem.question == QUADRILATERAL.operations[truth["operation"]].question
    ids = {problem.id for problem in make_problems(size=60)}
    assert not ids & {problem.id for problem in problems}


@pytest.mark.parametrize(
    "truth",
    [
        *(None, {}, {"facts": []}, {"operation": ["area"]}, {"operation": "area", "a": 2}),
        *({"operation": "area", "result": 6, **one} for one in ({"x": 2, "y": 3}, {"b": 3})),
        {"operation": "area", "result": 6, "a": "2", "b": 3},
        {"operation": "area", "result": 6, "a": 2, "b": "3"},
        {"operation": "area", "result": [6], "a": 2, "b": 3},
        {"operation": "perimeter", "result": 14, "a": 2, "b": 3},
    ],
)
def test_what_is_no_scene_has_no_numbers(truth):
    assert scene_numbers(truth) is None


def test_the_numbers_of_a_scene_are_in_reading_order():
    found = scene_numbers({"operation": "area", "b": 3, "a": 2, "result": 6, "prior": "training"})
    assert list(found.items()) == [("a", 2), ("b", 3)]
    sides = {"a": 2, "b": 3, "c": 4, "d": 5}
    assert scene_numbers({"operation": "perimeter", "result": 14, **sides}) == sides


@pytest.mark.parametrize(("prior", "expected"), [("training", 280 / 761), ("uniform", 1 / 8)])
def test_drawn_problems_follow_the_prior(prior, expected):
    problems = make_problems(prior=prior, difficulty=0.0)
    truths = [problems[i].truth for i in range(1500)]
    assert min(Counter(t["operation"] for t in truths).values()) > 400
    hits = [
        t[side] == RECTANGLE.operations[t["operation"]].prior_order[side][0]
        for t in truths
        for side in RECTANGLE.sides
    ]
    # 3000 draws: one standard error is below 0.009.
    assert sum(hits) / len(hits) == pytest.approx(expected, abs=0.035)


def test_the_held_out_sets_are_fixed_and_differ_in_their_prior():
    settings = {"zipf_exponent": 1.0, "difficulty": 1.0, "size": 10}
    sets = held_out_sets(**settings)
    assert {name: problems.prior for name, problems in sets.items()} == {
        "training prior": "training",
        "counter-prior": "uniform",
    }
    again = held_out_sets(**settings)
    for name, problems in sets.items():
        assert problems[7].images[0].tobytes() == again[name][7].images[0].tobytes()
        # Nobody trains with such a seed by accident.
        assert problems.seed > 2**32


def test_iterating_ends_at_the_size():
    assert len(list(make_problems(size=3))) == len(make_problems(size=3)) == 3
    with pytest.raises(IndexError):
        make_problems(size=3)[3]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"difficulty": 1.5}, "data.difficulty"),
        ({"zipf_exponent": -1.0}, "data.zipf_exponent"),
        ({"size": 0}, "data.size"),
        ({"seed": -1}, "data.seed"),
        ({"shape": "circle"}, "data.shape"),
    ],
)
def test_an_impossible_setting_names_its_key(changes, key):
    with pytest.raises(ValueError, match=key):
        make_problems(**changes)
