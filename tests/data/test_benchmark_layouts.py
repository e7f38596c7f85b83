"""Every layout, read and graded: references score 100 %, shuffled answers what chance gives."""

import itertools

import pytest
from data.benchmark_layouts import (
    ROWS,
    png,
    problems_node,
    write_logicvista,
    write_papo_eval,
    write_table,
    write_virl39k,
)

from papo.data import (
    LogicVistaProblems,
    PapoEvalProblems,
    ProblemError,
    ProblemTable,
    Virl39kProblems,
)
from papo.data.image_folder import ImageFolder
from papo.lab import LabGrader, held_out_set
from papo.lab.grading import write_response
from papo.rewards import AnswerGrader

PROMPT = "Think, then answer in \\boxed{}."
NINE = (
    *("geo3k", "mathvista", "wemath", "mmk12", "mathverse"),
    *("logicvista", "counting", "mmmu_pro", "mathverse_v"),
)
# Answers that several problems share, so that chance gives something.
SHARED = [(f"Question {index}?", answer, ["red"]) for index, answer in enumerate("ABAC")]


def papo_eval(folder, rows, key="geo3k"):
    node = problems_node(key)
    return PapoEvalProblems(
        key=key,
        split=node["split"],
        archive=node["archive"],
        num_rows=len(rows),
        path=str(write_papo_eval(folder, key, rows)),
        hub_id="PAPO-Galaxy/PAPO_eval",
        revision=None,
        prompt_suffix=PROMPT,
        limit=None,
        max_archive_gb=1.0,
    )


def logicvista(folder, rows, **changes):
    settings = {
        "key": "logicvista_repo",
        "num_rows": len(rows),
        "path": str(write_logicvista(folder, rows)),
        "prompt_suffix": PROMPT,
        "limit": None,
    }
    return LogicVistaProblems(**{**settings, **changes})


def virl39k(folder, rows, extracted=False, **changes):
    settings = {
        "key": "virl39k_original",
        "parquet": "39Krelease.parquet",
        "archive": "images.zip",
        "num_rows": len(rows) + 1,
        "path": str(write_virl39k(folder, rows, extracted=extracted)),
        "hub_id": "TIGER-Lab/ViRL39K",
        "revision": None,
        "prompt_suffix": PROMPT,
        "limit": None,
        "max_archive_gb": 1.0,
        "max_prompt_tokens": 100,
        "strict": False,
        "num_threads": 2,
    }
    return Virl39kProblems(**{**settings, **changes})


def table(folder, rows, kind):
    return ProblemTable(
        source="local",
        path=str(write_table(folder, rows, kind=kind)),
        hub_id=None,
        revision=None,
        split="test",
        question_column="problem",
        answer_column="answer",
        images_column="images",
        id_column="id",
        truth_columns=(),
        prompt_suffix=PROMPT,
        num_rows=None,
        limit=None,
        max_prompt_tokens=100,
        strict=False,
        num_threads=2,
    )


LAYOUTS = {
    **{key: lambda folder, rows, key=key: papo_eval(folder, rows, key) for key in NINE},
    "logicvista_repo": logicvista,
    "virl39k_original": virl39k,
    "parquet": lambda folder, rows: table(folder, rows, "parquet"),
    "jsonl": lambda folder, rows: table(folder, rows, "jsonl"),
}


@pytest.fixture(scope="module")
def grader():
    grader = AnswerGrader(grader="mathruler", deadline_seconds=5.0, num_workers=1)
    yield grader
    grader.close()


def accuracy(grader, problems, answers):
    graded = grader(problems, [f"<think>r</think> \\boxed{{{answer}}}" for answer in answers])
    return sum(one.correct for one in graded) / len(graded)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_references_score_one_hundred_per_cent(tmp_path, grader, layout):
    problems = list(LAYOUTS[layout](tmp_path / "data", ROWS))
    assert [one.answer for one in problems[:4]] == [answer for _, answer, _ in ROWS]
    assert accuracy(grader, problems, [one.answer for one in problems]) == 1.0
    assert all(one.question.endswith(PROMPT) for one in problems)
    assert all(one.question.count("<image>") == len(one.images) for one in problems)
    assert len({one.id for one in problems}) == len(problems)


@pytest.mark.parametrize("layout", ["geo3k", "logicvista_repo", "virl39k_original", "parquet"])
def test_shuffled_references_score_what_chance_gives(tmp_path, grader, layout):
    problems = list(LAYOUTS[layout](tmp_path / "data", SHARED))
    answers = [one.answer for one in problems]
    orders = list(itertools.permutations(answers))
    score = accuracy(grader, problems * len(orders), list(itertools.chain(*orders)))
    # A random permutation puts each answer before each problem equally often, so a problem is
    # right with probability count(its answer) / n: the expectation is sum of count^2 / n^2.
    chance = sum(answers.count(answer) for answer in answers) / len(answers) ** 2
    assert score == pytest.approx(chance)
    assert 0.0 < chance < 1.0


def test_the_lab_answers_score_the_same_way():
    problems = list(
        held_out_set(name="counter-prior", zipf_exponent=1.0, difficulty=1.0, size=4, limit=None)
    )
    responses = [
        write_response(one.truth["operation"], one.truth["a"], one.truth["b"]) for one in problems
    ]
    boxes = [one.answer for one in problems]

    def score(order):
        graded = LabGrader()(problems, order)
        return sum(one.correct for one in graded) / len(graded)

    assert score(responses) == 1.0
    scores = [score(order) for order in itertools.permutations(responses)]
    chance = sum(boxes.count(answer) for answer in boxes) / len(boxes) ** 2
    assert sum(scores) / len(scores) == pytest.approx(chance)


# LogicVista


def test_logicvista_leaves_out_the_entry_without_question_and_answer(tmp_path):
    problems = logicvista(tmp_path / "clone", ROWS)
    assert [problems.problem_id(i) for i in range(len(problems))] == [
        f"logicvista_repo:v1_{i}" for i in range(4)
    ]
    assert problems[1].images[0].getpixel((0, 0)) == (0, 128, 0)
    assert problems[1].question == f"<image>{ROWS[1][0]}\n\n{PROMPT}"
    inner = tmp_path / "clone" / "data"
    direct = LogicVistaProblems(
        key="logicvista_repo", num_rows=4, path=str(inner), prompt_suffix=PROMPT, limit=2
    )
    assert [one.answer for one in direct] == [answer for _, answer, _ in ROWS[:2]]


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"v1_0": {"question": "?"}}', '{"v1_0": 3}', '{"v1_0": {"question": 1}}'],
)
def test_a_logicvista_table_of_another_kind_is_refused(tmp_path, content):
    problems = logicvista(tmp_path / "clone", ROWS)
    (tmp_path / "clone" / "data" / "dataset.json").write_text(content)
    with pytest.raises(ValueError, match="is not LogicVista's table"):
        len(problems)


def test_logicvista_without_a_clone_says_how_to_get_it(tmp_path):
    with pytest.raises(ValueError, match=r"git clone .*benchmark\.path=LogicVista"):
        logicvista(tmp_path / "clone", ROWS, path=None)
    with pytest.raises(FileNotFoundError, match=r"looked for data/dataset\.json and data/images/"):
        logicvista(tmp_path / "other", ROWS, path=str(tmp_path)).preflight()


def test_a_logicvista_answer_that_is_missing_names_the_problem(tmp_path):
    problems = logicvista(tmp_path / "clone", [("Q?", "", ["red"])])
    with pytest.raises(ProblemError, match="logicvista_repo:v1_0: the reference answer is empty"):
        problems[0]


# ViRL39K


@pytest.mark.parametrize("extracted", [False, True])
def test_virl39k_reads_its_zip_or_the_extracted_folder(tmp_path, extracted):
    problems = virl39k(tmp_path / "data", ROWS, extracted)
    assert [one.id for one in problems] == ["q-0", "q-1", "q-2", "q-3", "q-4"]
    assert problems[0].answer == "4 \\sqrt { 3 }"
    assert [image.getpixel((0, 0)) for image in problems[1].images] == [(0, 128, 0), (0, 0, 255)]
    assert problems[4].images == ()


def test_virl39k_can_be_trained_on(tmp_path):
    rows = [*ROWS, ("<image><image>?", "1", ["red"])]
    usable, report = virl39k(tmp_path / "data", rows, max_prompt_tokens=75).usable(
        lambda problem: len(problem.question)
    )
    assert (report.seen, report.dropped) == (6, {"image_markers": 1, "prompt_too_long": 1})
    assert [usable[index].id for index in range(len(usable))] == ["q-0", "q-2", "q-3", "q-5"]


def test_virl39k_that_is_incomplete_names_its_key(tmp_path):
    with pytest.raises(ValueError, match=r"should hold 38870 problems; got 5.*data\.num_rows="):
        len(virl39k(tmp_path / "data", ROWS, num_rows=38870))


def test_virl39k_without_its_pictures_names_the_zip(tmp_path):
    problems = virl39k(tmp_path / "data", ROWS)
    (tmp_path / "data" / "images.zip").unlink()
    with pytest.raises(FileNotFoundError, match=r"looked for images\.zip.*data\.path=FOLDER"):
        problems.preflight()


# Finding pictures


def test_a_path_written_elsewhere_is_found_by_its_end(tmp_path):
    for name in ("set/1.png", "2.png", "deep/down/set2/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png("red"))
    folder = ImageFolder(tmp_path)
    assert folder.find("./data/images/set/1.png") == tmp_path / "set/1.png"
    assert folder.find("set2/1.png") == tmp_path / "deep/down/set2/1.png"
    assert folder.find("./data/images/any/2.png") == tmp_path / "2.png"
    assert folder.find("1.png") is None, "two files have this name"
    assert folder.find("other/1.png") is None
    assert folder.find("../2.png") == tmp_path / "2.png", "inside, whatever was written"
    for nothing in ("", ".", "/", "data/images", "set"):
        assert folder.find(nothing) is None
