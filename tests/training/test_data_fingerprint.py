"""A run goes on with the problems it began with, or says which differs and in what."""

from dataclasses import replace

import pytest
from command import contents, run_command
from PIL import Image

from papo.training import DataFingerprint
from papo.types import Problem


def picture(colour):
    return Image.new("RGB", (60, 40), colour)


def problem(number, **changes):
    plain = Problem(
        id=f"train-{number}",
        question=f"<image>What is {number}?",
        answer=str(number),
        images=(picture((number, 0, 0)),),
        source="test",
        truth={"lengths": [number, 2]},
    )
    return replace(plain, **changes)


def fingerprint(problems):
    found = DataFingerprint()
    measure = found.noting(lambda problem: len(problem.question))
    assert [measure(one) for one in problems] == [len(one.question) for one in problems]
    return found


PROBLEMS = [problem(number) for number in range(5)]


@pytest.fixture
def file(tmp_path):
    fingerprint(PROBLEMS).write(tmp_path / "problems.jsonl")
    return tmp_path / "problems.jsonl"


def test_the_same_problems_do_not_differ(file):
    again = [problem(number) for number in range(5)]
    # The same pixels, stored in another way.
    again[1] = replace(again[1], images=(again[1].images[0].convert("RGBA"),))
    assert fingerprint(again).difference(file) is None


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"question": "<image>Why?"}, "'train-2': it differs in its question"),
        ({"answer": "7"}, "'train-2': it differs in its answer"),
        ({"images": (picture((2, 0, 1)),)}, "'train-2': it differs in its pictures"),
        ({"images": ()}, "'train-2': it differs in its pictures"),
        ({"truth": None}, "'train-2': it differs in its truth"),
        ({"id": "train-9"}, "which was 'train-2' and is 'train-9'"),
        ({"question": "?", "answer": "!"}, "'train-2': it differs in its question and answer"),
    ],
)
def test_the_first_problem_that_differs_is_named_with_what_differs(file, changes, what):
    now = [*PROBLEMS[:2], problem(2, **changes), problem(3, answer="also"), PROBLEMS[4]]
    difference = fingerprint(now).difference(file)
    assert "5 problems were read when it began, 5 now" in difference
    assert difference.endswith(f"problem 3, {what}")


def test_order_and_number_matter(file):
    swapped = [*PROBLEMS[:3], PROBLEMS[4], PROBLEMS[3]]
    assert "problem 4, which was 'train-3' and is 'train-4'" in (
        fingerprint(swapped).difference(file)
    )
    assert "5 problems were read when it began, 4 now; the first that differs is problem 5" in (
        fingerprint(PROBLEMS[:4]).difference(file)
    )
    assert "problem 6, 'train-5': it is new" in (
        fingerprint([*PROBLEMS, problem(5)]).difference(file)
    )


def test_text_of_any_kind_has_a_hash(tmp_path):
    nasty = [problem(0, id="\ud800\u2028", question="\udfff<image>", truth={"when": object})]
    fingerprint(nasty).write(tmp_path / "problems.jsonl")
    assert fingerprint(nasty).difference(tmp_path / "problems.jsonl") is None


@pytest.mark.parametrize("content", [b"\xff\n", b"[1]\n", b"{\n", b"[" * 100_000])
def test_a_damaged_file_is_named_with_the_way_out(file, content):
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"problems\.jsonl is damaged.*Delete it"):
        fingerprint(PROBLEMS).difference(file)


def write_table(folder, answers):
    import json

    folder.mkdir(exist_ok=True)
    rows = []
    for number, answer in enumerate(answers):
        picture((number, 0, 0)).save(folder / f"{number}.png")
        rows.append({"problem": "<image>How many?", "answer": answer, "images": [f"{number}.png"]})
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))


def test_a_run_does_not_go_on_with_other_problems(tmp_path):
    table, run = tmp_path / "table", tmp_path / "run"
    write_table(table, "123456")
    command = (
        *("model=tiny_qwen2_5_vl", "reward=math", "data=local", f"data.path={table}"),
        *("rollout.max_response_tokens=4", "data.num_threads=1"),
    )
    outcome = run_command(*command, f"run_dir={run}", "training.num_rollouts=1")
    assert outcome.code == 0, outcome.stderr
    kept = (run / "problems.jsonl").read_bytes()
    assert len(kept.splitlines()) == 6

    longer = (f"run_dir={run}", "resume=true", "training.num_rollouts=2")
    write_table(table, "123056")
    before = contents(run)
    outcome = run_command(*longer, short=False)
    assert outcome.code == 1
    assert "6 problems were read when it began, 6 now" in outcome.stderr
    assert "problem 4, 'train-3': it differs in its answer" in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
    assert contents(run) == before

    # A run that was begun before the problems were kept goes on, and says so.
    (run / "problems.jsonl").unlink()
    write_table(table, "123456")
    outcome = run_command(*longer, short=False)
    assert outcome.code == 0, outcome.stderr
    assert "problems.jsonl is missing, so the training problems cannot be compared" in (
        outcome.stdout
    )
    assert (run / "problems.jsonl").read_bytes() == kept


def test_the_number_of_threads_does_not_matter(tmp_path):
    from papo.data import ProblemTable

    write_table(tmp_path, "1234567890" * 8)
    found = []
    for num_threads in (1, 4):
        table = ProblemTable(
            source="local",
            path=str(tmp_path),
            hub_id=None,
            revision=None,
            split="train",
            question_column="problem",
            answer_column="answer",
            images_column="images",
            id_column=None,
            truth_columns=(),
            prompt_suffix="",
            num_rows=None,
            limit=None,
            max_prompt_tokens=100,
            strict=True,
            num_threads=num_threads,
        )
        fingerprint = DataFingerprint()
        table.usable(fingerprint.noting(lambda problem: 1))
        found.append(fingerprint.problems)
    assert found[0] == found[1]
    assert len(found[0]) == 80
