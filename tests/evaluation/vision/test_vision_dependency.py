"""What the image is worth, against numbers worked out by hand and a naive computation."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from papo.evaluation.vision.dependency import ALL, KNOWN_VIEWS, measure_vision_dependency
from papo.evaluation.vision.report import vision_markdown, write_vision_dependency
from papo.types import ResponseRecord

RATIOS = (0.2, 0.4, 0.6, 0.8, 1.0)


def record(problem_id, view, index, correct, benchmark="some"):
    return ResponseRecord(
        benchmark=benchmark,
        problem_id=problem_id,
        view=view,
        response_index=index,
        seed=0,
        response="",
        reference="1",
        answer=None,
        correct=correct,
        verdicts={},
        num_tokens=1,
        stop_reason="end",
    )


def records(verdicts, benchmark="some"):
    """From {view: {problem: "1101"}}, a digit per response."""
    return [
        record(problem_id, view, index, digit == "1", benchmark)
        for view, problems in verdicts.items()
        for problem_id, digits in problems.items()
        for index, digit in enumerate(digits)
    ]


def only_set(verdicts):
    (found,) = measure_vision_dependency(records(verdicts), bootstrap_seed=0).sets
    return found


def test_accuracy_and_difference_are_those_of_the_problems_shown():
    # p3 has no picture, so it is compared nowhere: 3 of 4 right with the image against 1 of 4.
    found = only_set(
        {
            "image": {"p1": "11", "p2": "10", "p3": "11"},
            "blank": {"p1": "10", "p2": "00"},
        }
    )
    (blank,) = found.views
    assert found.image_accuracy.value == pytest.approx(5 / 6)
    assert (blank.num_problems, blank.num_left_out) == (2, 1)
    assert blank.accuracy.value == 0.25
    assert blank.image_accuracy == 0.75
    assert blank.difference.interval.value == -0.5
    assert found.blind_correct["blank"] == blank.accuracy


def test_a_view_equal_to_the_image_makes_no_difference_and_a_worse_one_does():
    rng = np.random.default_rng(0)
    image = {f"p{i}": "".join(rng.choice(["0", "1"], size=4)) for i in range(60)}
    worse = {one: row[:2] + "00" for one, row in image.items()}
    same, less = only_set({"image": image, "blank": image, "removed": worse}).views
    assert same.difference.interval.value == 0.0
    assert same.difference.p_value == 1.0
    assert less.difference.interval.high < 0.0
    assert less.difference.p_value < 0.01


@pytest.mark.parametrize(
    ("image", "blank", "quadrant"),
    [
        ("1110", "0001", "needs_image"),
        ("1111", "1110", "shortcut"),
        ("0000", "1000", "never"),
        ("0001", "1110", "hurt_by_image"),
        ("1100", "0000", "never"),  # a tie with the image is not solved
        ("1110", "1100", "needs_image"),  # nor is a tie without it
        ("1", "0", "needs_image"),
    ],
)
def test_a_problem_is_solved_by_more_than_half_of_its_responses(image, blank, quadrant):
    (quadrants,) = only_set({"image": {"p": image}, "blank": {"p": blank}}).quadrants
    assert quadrants.problem_ids[quadrant] == ("p",)
    assert quadrants.shares[quadrant].value == 1.0


def test_the_shares_of_the_quadrants_add_up_to_one():
    rng = np.random.default_rng(1)
    views = {
        view: {f"p{i}": "".join(rng.choice(["0", "1"], size=3)) for i in range(30)}
        for view in ("image", "removed", "blank")
    }
    blank, removed = only_set(views).quadrants
    assert (blank.view, removed.view) == ("blank", "removed")
    for quadrants in (blank, removed):
        assert sum(share.value for share in quadrants.shares.values()) == pytest.approx(1.0)
        assert sum(map(len, quadrants.problem_ids.values())) == 30
        assert all(share.low < share.value < share.high for share in quadrants.shares.values())


def masked_views(heights):
    """Ten problems with one response; at each ratio the first `height` of them are right."""
    return {
        "image" if ratio == 0 else f"masked_{ratio}": {
            f"p{i}": "1" if i < height else "0" for i in range(10)
        }
        for ratio, height in zip((0, *RATIOS), heights, strict=True)
    }


def test_the_area_under_the_curve_is_that_of_the_trapezoids():
    # 0.2 * (10/2 + 8 + 6 + 4 + 2 + 0/2) / 10 = 0.5: a straight line from 1 to 0.
    curve = only_set(masked_views([10, 8, 6, 4, 2, 0])).curve
    assert curve.ratios == (0.0, *RATIOS)
    assert [point.value for point in curve.accuracies] == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0])
    assert curve.area.value == pytest.approx(0.5)
    assert curve.retained.value == pytest.approx(0.5)
    assert curve.area.low < 0.5 < curve.area.high
    # numpy's own rule on another curve, whose steps are uneven.
    uneven = masked_views([8, 8, 7, 3, 3, 1])
    del uneven["masked_0.4"]
    curve = only_set(uneven).curve
    expected = np.trapezoid([0.8, 0.8, 0.3, 0.3, 0.1], [0, 0.2, 0.6, 0.8, 1.0])
    assert curve.area.value == pytest.approx(expected)
    assert curve.retained.value == pytest.approx(expected / 0.8)


def test_where_hiding_changes_nothing_all_is_retained():
    curve = only_set(masked_views([7] * 6)).curve
    assert curve.area.value == pytest.approx(0.7)
    assert curve.retained.value == pytest.approx(1)
    assert curve.retained.low < 1 < curve.retained.high


def test_the_interval_of_the_area_resamples_problems_with_their_whole_curves():
    # Half of the problems need the picture at once, half never: areas 0.1 and 1, ten of each.
    heights = {"image": 20, **{f"masked_{ratio}": 10 for ratio in RATIOS}}
    views = {
        view: {f"p{i}": "1" if i < height else "0" for i in range(20)}
        for view, height in heights.items()
    }
    curve = only_set(views).curve
    rng = np.random.default_rng(0)
    naive = rng.choice([1.0, 0.1], size=(4000, 20)).mean(axis=1)
    assert curve.area.value == pytest.approx(0.55)
    assert (curve.area.low, curve.area.high) == pytest.approx(
        tuple(np.quantile(naive, [0.025, 0.975])), abs=0.03
    )


def test_only_problems_shown_at_every_ratio_are_on_the_curve():
    views = masked_views([10, 8, 6, 4, 2, 0])
    views["image"]["text"] = "1"
    curve = only_set(views).curve
    assert curve.num_problems == 10
    assert curve.accuracies[0].value == 1.0


def test_without_ratio_one_there_is_a_curve_and_no_area():
    views = masked_views([10, 8, 6, 4, 2, 0])
    del views["masked_1.0"]
    found = measure_vision_dependency(records(views), bootstrap_seed=0)
    curve = found.sets[0].curve
    assert curve.ratios == (0.0, 0.2, 0.4, 0.6, 0.8)
    assert curve.area is None
    assert "masked_1.0 was not run" in vision_markdown(found)


def test_where_nothing_is_right_nothing_can_be_retained():
    found = measure_vision_dependency(records(masked_views([0] * 6)), bootstrap_seed=0)
    assert found.sets[0].curve.area.value == 0.0
    assert found.sets[0].curve.retained is None
    assert "nothing can be retained" in vision_markdown(found)


def test_views_that_were_not_run_are_named():
    found = measure_vision_dependency(
        records({"image": {"p": "1"}, "blank": {"p": "0"}}), bootstrap_seed=0
    )
    assert found.not_run == tuple(v for v in KNOWN_VIEWS if v not in ("image", "blank"))
    text = vision_markdown(found)
    assert "not run: removed, swapped, masked_0.2" in text
    assert found.sets[0].curve is None


def test_benchmarks_are_reported_apart_and_pooled_over_problems():
    first = records({"image": {"p": "1"}, "blank": {"p": "0"}}, "a")
    second = records(
        {"image": {"p": "1", "q": "0", "r": "1"}, "blank": {"p": "1", "q": "0", "r": "0"}}, "b"
    )
    found = measure_vision_dependency(first + second, bootstrap_seed=0)
    assert [one.benchmark for one in found.sets] == ["a", "b", ALL]
    pooled = found.sets[-1]
    assert pooled.num_problems == 4
    assert pooled.image_accuracy.value == 0.75
    assert pooled.views[0].accuracy.value == 0.25
    assert pooled.quadrants[0].problem_ids["needs_image"] == ("a/p", "b/r")
    assert pooled.quadrants[0].problem_ids["shortcut"] == ("b/p",)


def test_without_the_plain_view_there_is_nothing_to_compare_with():
    with pytest.raises(ValueError, match="plain view; got blank alone on some"):
        measure_vision_dependency(records({"blank": {"p": "1"}}), bootstrap_seed=0)


def full_report():
    views = masked_views([9, 8, 6, 4, 2, 1])
    blind = {one: row for one, row in views["masked_1.0"].items()}
    views |= {"blank": blind, "removed": blind, "swapped": blind}
    other = [replace(one, benchmark="other") for one in records(views)]
    return measure_vision_dependency(records(views) + other, bootstrap_seed=0)


def test_the_report_is_written_as_json_text_and_pictures(tmp_path):
    found = full_report()
    write_vision_dependency(found, tmp_path)
    written = json.loads((tmp_path / "vision_dependency.json").read_text())
    assert written["not_run"] == []
    assert [one["benchmark"] for one in written["sets"]] == ["some", "other", ALL]
    assert written["sets"][0]["image_accuracy"]["value"] == 0.9
    text = (tmp_path / "vision_dependency.md").read_text()
    assert "a tie does not count" in text
    assert "| blank | 10 | 0 | 10.0 [" in text
    assert "with the image alone (needs the image) | 80.0 [" in text
    drawing = (tmp_path / "vision_dependency.svg").read_text()
    assert all(word in drawing for word in ("swapped", "needs the image", ALL))
    root = ElementTree.fromstring(drawing)
    # Nine, eight, six, four, two and one of ten right at the shares hidden, in each of three sets.
    assert "some from 0.9 to 0.1, lowest 0.1, highest 0.9" in root.get("aria-label")
    assert len(list(root.iter("{http://www.w3.org/2000/svg}polyline"))) == 3
    assert f"{ALL} (blank) needs the image 80" in root.get("aria-label")


def test_the_same_report_draws_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_vision_dependency(full_report(), tmp_path / name)
    for suffix in ("svg", "json", "md"):
        first, second = (tmp_path / n / f"vision_dependency.{suffix}" for n in ("one", "two"))
        assert first.read_bytes() == second.read_bytes()


def test_a_report_of_one_blind_view_can_be_drawn(tmp_path):
    for views in (["removed"], ["swapped"]):
        verdicts = {"image": {"p": "1"}, **{view: {"p": "0"} for view in views}}
        write_vision_dependency(
            measure_vision_dependency(records(verdicts), bootstrap_seed=0), tmp_path
        )
        ElementTree.parse(tmp_path / "vision_dependency.svg")
