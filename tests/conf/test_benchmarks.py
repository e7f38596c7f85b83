"""Every benchmark composes below a small primary configuration and reads its layout."""

from pathlib import Path

import pytest
from data.benchmark_layouts import (
    ROWS,
    write_logicvista,
    write_papo_eval,
    write_table,
    write_virl39k,
)
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from papo.commands import building
from papo.lab import LabGrader, shortest_response
from papo.rewards import AnswerGrader
from papo.storage.published import published_results
from papo.types import Grader, ProblemSource

CONF = Path(__file__).resolve().parents[2] / "conf"
GENERAL = ["geo3k", "mathvista", "wemath", "mmk12", "mathverse"]
VISION = ["logicvista", "counting", "mmmu_pro", "mathverse_v"]
LAB = ["lab_prior", "lab_counter_prior"]
OTHER = ["geometry3k", "local", "logicvista_repo", "virl39k_original"]
# arXiv:2507.06448v5, Table 1; PAPO-Galaxy/PAPO_eval as its readers count it.
NUM_ROWS = {
    "geo3k": 601, "mathvista": 1000, "wemath": 1740, "mmk12": 2000, "mathverse": 2180,
    "logicvista": 447, "counting": 200, "mmmu_pro": 1730, "mathverse_v": 1308,
}  # fmt: skip


def composed(benchmark, *overrides):
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        return compose(overrides=[f"+benchmark={benchmark}", "+data.path=null", *overrides])


def write(key, folder):
    """Writes the layout of a benchmark; returns how many problems it holds."""
    if key in (*GENERAL, *VISION):
        write_papo_eval(folder, key)
    elif key == "logicvista_repo":
        write_logicvista(folder)
    elif key == "virl39k_original":
        write_virl39k(folder)
        return len(ROWS) + 1
    else:
        write_table(folder)
    return len(ROWS)


def counted(key, number):
    """The override that lets a fixture be as small as it is, where a set has a count."""
    if key in ("geometry3k", "local"):
        return []
    return [f"benchmark.sets.{key}.problems.num_rows={number}"]


def test_every_file_is_tried():
    files = {file.stem for file in (CONF / "benchmark").glob("*.yaml")}
    assert files == {
        *GENERAL,
        *VISION,
        *OTHER,
        "general",
        "vision",
        "all",
        "lab",
        "lab_quadrilateral",
        "none",
    }


@pytest.mark.parametrize(
    ("benchmark", "keys"),
    [
        ("general", GENERAL),
        ("vision", VISION),
        ("all", [*GENERAL, *VISION]),
        ("lab", LAB),
        ("lab_quadrilateral", LAB),
        *((key, [key]) for key in (*GENERAL, *VISION, *OTHER)),
    ],
)
def test_every_benchmark_describes_its_sets(benchmark, keys):
    config = composed(benchmark).benchmark
    assert list(config.sets) == keys
    for key, node in OmegaConf.to_container(config.sets, resolve=True).items():
        assert set(node) == {"label", "group", "published_column", "problems", "grader"}
        group = "general" if key in GENERAL else "vision" if key in VISION else "other"
        assert node["group"] == ("lab" if key in LAB else group)
        assert node["published_column"] == (key if key in NUM_ROWS else None)
        if key in NUM_ROWS:
            assert node["problems"]["num_rows"] == NUM_ROWS[key]
            assert node["problems"]["key"] == key


def test_the_nine_are_the_columns_of_the_published_table():
    assert list(composed("all").benchmark.sets) == published_results()["main"]["columns"]


@pytest.mark.parametrize("key", [*GENERAL, *VISION, *OTHER])
@pytest.mark.parametrize("override", ["benchmark.path", "data.path"])
def test_every_benchmark_reads_the_folder_it_is_pointed_at(tmp_path, key, override):
    number = write(key, tmp_path / "files")
    config = composed(key, f"{override}={tmp_path / 'files'}", *counted(key, number))
    node = config.benchmark.sets[key]
    problems = building.instantiate(node.problems)
    assert isinstance(problems, ProblemSource)
    problems.preflight()
    assert len(problems) == number
    assert [problems[index].answer for index in range(4)] == [answer for _, answer, _ in ROWS]
    assert problems[0].question.endswith("final answer enclosed within \\boxed{}.")
    assert len({problems.problem_id(index) for index in range(number)}) == number


@pytest.mark.parametrize("key", [*GENERAL, *VISION, *OTHER])
def test_a_limit_is_the_same_key_for_all(tmp_path, key):
    number = write(key, tmp_path)
    config = composed(key, f"benchmark.path={tmp_path}", "benchmark.limit=2", *counted(key, number))
    assert len(building.instantiate(config.benchmark.sets[key].problems)) == 2


@pytest.mark.parametrize("key", [*GENERAL, *VISION, "geometry3k", "virl39k_original"])
def test_the_commit_is_the_same_key_for_all(key):
    problems = composed(key, "benchmark.revision=abc").benchmark.sets[key].problems
    assert problems.revision == "abc"


def test_the_whole_suite_reads_one_folder(tmp_path):
    for key in NUM_ROWS:
        write_papo_eval(tmp_path, key)
    counts = [override for key in NUM_ROWS for override in counted(key, len(ROWS))]
    config = composed("all", f"benchmark.path={tmp_path}", *counts)
    for key, node in config.benchmark.sets.items():
        problems = building.instantiate(node.problems)
        assert [problem.id for problem in problems] == [f"{key}:{row}" for row in range(4)]


@pytest.mark.parametrize("key", LAB)
def test_the_lab_sets_are_drawn(key):
    config = composed("lab", "benchmark.limit=3")
    problems = building.instantiate(config.benchmark.sets[key].problems)
    assert len(problems) == 3
    assert problems[0].truth["prior"] == {"lab_prior": "training"}.get(key, "uniform")
    assert len(building.instantiate(composed("lab").benchmark.sets[key].problems)) == 250
    config = composed("lab_quadrilateral", "benchmark.limit=3").benchmark
    problems = building.instantiate(config.sets[key].problems)
    assert set("abcd") <= problems[2].truth.keys()
    assert config.max_response_tokens > shortest_response(problems.shape)


def test_the_lab_has_no_path():
    with pytest.raises(ConfigCompositionException, match=r"Could not override 'benchmark\.path'"):
        composed("lab", "benchmark.path=somewhere")


@pytest.mark.parametrize("key", [*GENERAL, *VISION, *OTHER])
def test_every_set_has_a_grader(key):
    config = composed(key, "benchmark.grader=combined", "benchmark.deadline_seconds=1.0")
    grader = building.instantiate(config.benchmark.sets[key].grader)
    assert isinstance(grader, AnswerGrader)
    assert isinstance(grader, Grader)
    assert grader._grader == "combined"


@pytest.mark.parametrize("key", LAB)
def test_the_lab_grades_its_own(key):
    grader = building.instantiate(composed("lab").benchmark.sets[key].grader)
    assert isinstance(grader, LabGrader)


def test_the_prompt_is_that_of_training():
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        trained = compose("train", overrides=["data=virl39k"]).data.prompt_suffix
        original = compose("train", overrides=["data=virl39k_original"]).data.prompt_suffix
    assert composed("all").benchmark.prompt_suffix == trained == original
