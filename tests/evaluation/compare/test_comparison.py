"""Two evaluations side by side: the numbers, the lists, and what is refused."""

import json
import subprocess
from math import comb

import pytest

from papo.evaluation.compare.comparison import POOLED, compare_evaluations, read_evaluation
from papo.evaluation.compare.comparison_report import comparison_notes, write_comparison
from papo.types import ResponseRecord

PROTOCOL = {"num_responses": 2, "temperature": 1.0, "top_p": 1.0, "top_k": None, "seed": 0}


def write_evaluation(
    folder,
    verdicts,
    *,
    view="image",
    status="finished",
    protocol=(),
    grader="math",
    reference="1",
    prompt_suffix="Think.",
    views=None,
):
    """Writes an evaluation folder from {benchmark: {problem: "10"}}, a digit per response."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "responses.jsonl").open("a") as file:
        for benchmark, problems in verdicts.items():
            for problem_id, digits in problems.items():
                for index, digit in enumerate(digits):
                    record = ResponseRecord(
                        benchmark=benchmark,
                        problem_id=problem_id,
                        view=view,
                        response_index=index,
                        seed=0,
                        response="",
                        reference=reference,
                        answer=None,
                        correct=digit == "1",
                        verdicts={},
                        num_tokens=1,
                        stop_reason="end",
                    )
                    file.write(record.to_line())
    if status is not None:
        (folder / "result.json").write_text(json.dumps({"status": status}))
    (folder / "summary.json").write_text(json.dumps({"protocol": {**PROTOCOL, **dict(protocol)}}))
    one = {"grader": {"grader": grader}, "problems": {"prompt_suffix": prompt_suffix}}
    config = {"benchmark": {"sets": dict.fromkeys(verdicts, one)}, "views": views or {}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def compared(first, second, *, view="image", common_only=False, any_settings=False):
    return compare_evaluations(
        read_evaluation(first, view=view),
        read_evaluation(second, view=view),
        common_only=common_only,
        any_settings=any_settings,
        seed=0,
    )


@pytest.fixture
def compare(tmp_path):
    """Compares two evaluations given as {benchmark: {problem: digits}}."""

    def compare(first, second, **options):
        return compared(
            write_evaluation(tmp_path / "first", first),
            write_evaluation(tmp_path / "second", second),
            **options,
        )

    return compare


def test_a_problem_of_two_benchmarks_is_resampled_once(compare, tmp_path):
    before = {str(number): "10" for number in range(20)}
    after = {str(number): "11" if number % 3 else "00" for number in range(20)}
    (tmp_path / "first").mkdir()

    def width(question_of):
        rows = [
            {
                "benchmark": key,
                "problem_id": id,
                "question": question_of(key, id),
                "image_hashes": [],
            }
            for key in ("all", "part")
            for id in before
        ]
        (tmp_path / "first" / "problems.jsonl").write_text("\n".join(map(json.dumps, rows)))
        for name in ("first", "second"):
            (tmp_path / name / "responses.jsonl").unlink(missing_ok=True)
        found = compare({"all": before, "part": before}, {"all": after, "part": after})
        return found.mean_difference.high - found.mean_difference.low

    apart, shared = width(lambda key, id: key + id), width(lambda key, id: id)
    assert shared / apart == pytest.approx(2**0.5, rel=0.1)


def test_the_numbers_of_a_small_comparison_by_hand(compare):
    found = compare(
        {"some": {"a": "11", "b": "00", "c": "10", "d": "00"}},
        {"some": {"a": "11", "b": "11", "c": "00", "d": "10"}},
    )
    (one,) = found.benchmarks
    # Shares 1, 0, 1/2, 0 and 1, 1, 0, 1/2.
    assert (one.first.value, one.second.value) == (0.375, 0.625)
    assert one.difference.interval.value == pytest.approx(0.25)
    # One right of two is a tie, which solves nothing: b is fixed, c was not solved before.
    assert (one.fixed, one.broken) == (("b",), ())
    assert (one.still_solved, one.still_unsolved) == (("a",), ("c", "d"))
    assert one.mcnemar_p == 1.0
    assert found.mean_difference is None


def test_mcnemar_counts_the_problems_that_changed_sides(compare):
    # 10 fixed and 2 broken: p = 2 * P(at most 2 of 12 heads) = 0.0386.
    first = {f"p{i}": "0" if i < 10 else "1" for i in range(30)}
    second = {f"p{i}": "0" if 10 <= i < 12 else "1" for i in range(30)}
    (one,) = compare({"some": first}, {"some": second}).benchmarks
    assert (len(one.fixed), len(one.broken)) == (10, 2)
    assert one.mcnemar_p == pytest.approx(2 * sum(comb(12, i) for i in range(3)) / 2**12)
    assert one.difference.interval.value == pytest.approx(8 / 30)
    assert one.difference.interval.low > 0.0


def test_benchmarks_are_corrected_for_their_number_and_pooled(compare):
    first = {b: {f"p{i}": "00" if i < 12 else "11" for i in range(40)} for b in ("x", "y", "z")}
    second = {
        # x: twelve problems fixed; y: twelve better by a tie, which solves none; z: one fixed.
        "x": dict.fromkeys(first["x"], "11"),
        "y": {one: "10" if row == "00" else row for one, row in first["y"].items()},
        "z": {**first["z"], "p0": "11"},
    }
    found = compare(first, second)
    assert [one.mcnemar_p for one in found.benchmarks] == pytest.approx([2 / 2**12, 1.0, 1.0])
    assert [one.mcnemar_q for one in found.benchmarks] == pytest.approx([6 / 2**12, 1.0, 1.0])
    p_values = [one.difference.p_value for one in found.benchmarks]
    assert p_values[1] == pytest.approx(p_values[0])
    # The second smallest of three p-values is multiplied by 3/2, and the smallest is as small.
    expected = [1.5 * p_values[0], 1.5 * p_values[1], 1.0]
    assert [one.difference_q for one in found.benchmarks] == pytest.approx(expected)
    assert found.pooled.benchmark == POOLED
    assert found.pooled.num_problems == 120
    assert found.pooled.difference.interval.value == pytest.approx((12 + 6 + 1) / 120)
    assert found.pooled.fixed[-1] == "z/p0"
    assert found.pooled.difference_q is None
    assert found.mean_difference.value == pytest.approx((12 + 6 + 1) / 120)


def test_a_run_beside_itself_shows_no_difference(compare):
    verdicts = {"some": {"a": "11", "b": "00", "c": "10"}}
    (one,) = compare(verdicts, verdicts).benchmarks
    assert one.difference.interval.value == 0.0
    assert one.difference.p_value == one.mcnemar_p == 1.0
    assert one.fixed == one.broken == ()


def test_another_view_is_compared_when_asked_for(tmp_path):
    for name, digit in (("first", "0"), ("second", "1")):
        write_evaluation(tmp_path / name, {"some": {"a": "1"}})
        write_evaluation(tmp_path / name, {"some": {"a": digit}}, view="blank")
    found = compared(tmp_path / "first", tmp_path / "second", view="blank")
    assert found.benchmarks[0].fixed == ("a",)
    with pytest.raises(ValueError, match=r"view 'removed'; it has image, blank\."):
        compared(tmp_path / "first", tmp_path / "second", view="removed")


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"some": {"a": "1", "c": "1"}}, r"1 problems are in .*first alone: some/b\."),
        ({"some": {"a": "1", "b": "1", "c": "1"}}, r"in .*second alone: some/c\."),
        ({"some": {"a": "1", "b": "1"}, "other": {"a": "1"}}, r"second was evaluated on other\."),
        ({"some": {"a": "11", "b": "11"}}, r"first has 1, .*second has 2"),
    ],
)
def test_runs_on_different_problems_are_refused_by_name(compare, second, message):
    with pytest.raises(ValueError, match=message):
        compare({"some": {"a": "1", "b": "0"}}, second)


def test_long_lists_of_missing_problems_are_cut(compare):
    first = {"some": {f"p{i}": "1" for i in range(20)}}
    with pytest.raises(ValueError, match=r"19 problems .* some/p5 and 14 more") as caught:
        compare(first, {"some": {"p0": "1"}})
    assert "--common" in str(caught.value)


def test_common_problems_are_compared_when_asked_for_and_counted(compare):
    found = compare(
        {"some": {"a": "1", "b": "0"}, "lost": {"x": "1"}},
        {"some": {"b": "1", "c": "1"}},
        common_only=True,
    )
    assert found.left_out == (2, 1)
    assert found.pooled.num_problems == 1
    assert any("left out: 2 of the first run, 1" in note for note in comparison_notes(found))


def test_without_a_common_problem_there_is_no_comparison(compare):
    with pytest.raises(ValueError, match="no problem in common"):
        compare({"some": {"a": "1"}}, {"some": {"b": "1"}}, common_only=True)


def test_problems_with_another_reference_answer_are_not_the_same(tmp_path):
    first = write_evaluation(tmp_path / "first", {"some": {"a": "1"}}, reference="1")
    second = write_evaluation(tmp_path / "second", {"some": {"a": "1"}}, reference="2")
    with pytest.raises(ValueError, match="different reference answers for some/a"):
        compared(first, second)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol": {"temperature": 0.5}}, "temperature is 1.0 and 0.5"),
        ({"protocol": {"max_pixels": 4}}, "max_pixels is None and 4"),
        ({"grader": "other"}, "benchmark.sets.some.grader is"),
        ({"prompt_suffix": "Guess."}, "prompt_suffix is 'Think.' and 'Guess.'"),
    ],
)
def test_runs_that_were_not_measured_alike_need_permission(tmp_path, change, message):
    first = write_evaluation(tmp_path / "first", {"some": {"a": "1"}})
    second = write_evaluation(tmp_path / "second", {"some": {"a": "1"}}, **change)
    with pytest.raises(ValueError, match=message):
        compared(first, second)
    notes = comparison_notes(compared(first, second, any_settings=True))
    assert any(message in note for note in notes)


@pytest.mark.parametrize("change", [{"num_masks": 8}, {"make_mask": {"grid": "token"}}])
def test_other_masks_are_an_obstacle_in_their_own_view_alone(tmp_path, change):
    masked = {"ratio": 0.6, "num_masks": 4, "make_mask": {"grid": "raw"}}
    for name, one in (("first", masked), ("second", masked | change)):
        views = {"image": {}, "masked_06": one, "masked_08": masked | {"ratio": 0.8}}
        for view in ("image", "masked_0.6", "masked_0.8"):
            write_evaluation(tmp_path / name, {"some": {"a": "1"}}, view=view, views=views)
    for view in ("image", "masked_0.8"):
        assert compared(tmp_path / "first", tmp_path / "second", view=view).other_settings == ()
    with pytest.raises(ValueError, match=r"the view masked_0\.6 is"):
        compared(tmp_path / "first", tmp_path / "second", view="masked_0.6")


def test_another_seed_is_no_obstacle(tmp_path):
    first = write_evaluation(tmp_path / "first", {"some": {"a": "1"}})
    second = write_evaluation(tmp_path / "second", {"some": {"a": "1"}}, protocol={"seed": 7})
    assert compared(first, second).other_settings == ()


@pytest.mark.parametrize("status", ["interrupted", "failed", None])
def test_a_half_finished_evaluation_is_refused(tmp_path, status):
    folder = write_evaluation(tmp_path / "half", {"some": {"a": "1"}}, status=status)
    with pytest.raises(ValueError, match=f"{status or 'unfinished'}.*resume=true"):
        read_evaluation(folder, view="image")


def test_what_is_no_evaluation_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        read_evaluation(tmp_path / "nowhere", view="image")
    with pytest.raises(ValueError, match=r"no responses\.jsonl"):
        read_evaluation(tmp_path, view="image")
    empty = write_evaluation(tmp_path / "empty", {})
    with pytest.raises(ValueError, match="none at all"):
        read_evaluation(empty, view="image")


def test_missing_and_repeated_responses_are_refused(tmp_path):
    ragged = write_evaluation(tmp_path / "ragged", {"some": {"a": "11", "b": "1"}})
    with pytest.raises(ValueError, match="lacks responses to some/b; others have 2"):
        read_evaluation(ragged, view="image")
    twice = write_evaluation(tmp_path / "twice", {"some": {"a": "1"}})
    write_evaluation(twice, {"some": {"a": "1"}})
    with pytest.raises(ValueError, match="response 0 to some/a twice"):
        read_evaluation(twice, view="image")


def test_damaged_files_are_named(tmp_path):
    folder = write_evaluation(tmp_path / "damaged", {"some": {"a": "1"}})
    (folder / "responses.jsonl").write_text('{"benchmark": "some"}\n')
    with pytest.raises(ValueError, match=r"responses\.jsonl, line 1"):
        read_evaluation(folder, view="image")
    (folder / "result.json").write_text("[]")
    with pytest.raises(ValueError, match=r"result\.json is damaged: it holds list"):
        read_evaluation(folder, view="image")


@pytest.mark.parametrize("name", ["summary.json", "config.json"])
@pytest.mark.parametrize("content", [None, "{}", '{"protocol": [], "benchmark": []}'])
def test_an_evaluation_that_does_not_say_how_it_was_made_is_refused(tmp_path, name, content):
    folder = write_evaluation(tmp_path / "some", {"some": {"a": "1"}})
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    with pytest.raises(ValueError, match="does not say how it was sampled and graded"):
        read_evaluation(folder, view="image")


def test_the_lists_are_written_and_hostile_ids_stay_text(tmp_path, compare):
    found = compare({"<i>": {"<b>|x": "0", "y": "1"}}, {"<i>": {"<b>|x": "1", "y": "1"}})
    write_comparison(found, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert written["benchmarks"][0]["fixed"] == ["<b>|x"]
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert "Fixed (1): &lt;b&gt;\\|x" in text
    assert "## &lt;i&gt;" in text
    assert "Still solved (1): y" in text
    assert "Broken (0): none" in text


def run_script(python, repository, *arguments):
    command = [python, "scripts/compare_runs.py", *map(str, arguments)]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True)


def test_the_command_prints_a_table_and_writes_the_lists(tmp_path, repository, forked_python):
    problems = {f"p{i}": "0" for i in range(8)}
    first = write_evaluation(tmp_path / "first", {"some": problems})
    second = write_evaluation(tmp_path / "second", {"some": dict.fromkeys(problems, "1")})
    done = run_script(forked_python, repository, first, second, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    # Eight of eight fixed: p = 2 / 2^8 = 0.0078, by signs and by McNemar alike.
    assert "+100.0" in done.stdout
    assert done.stdout.count("0.0078") == 4
    assert (tmp_path / "out" / "comparison.md").exists()


def test_the_command_says_what_is_wrong_in_one_line(tmp_path, repository, forked_python):
    first = write_evaluation(tmp_path / "first", {"some": {"a": "1"}})
    done = run_script(forked_python, repository, first, tmp_path / "nowhere")
    assert done.returncode == 1
    assert done.stderr.startswith("error: there is no folder")
    assert "Traceback" not in done.stderr
