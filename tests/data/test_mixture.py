"""Sets of problems are mixed by weight, the same way in every process and after every start."""

from collections import Counter

import pytest
from data.test_problem_table import table, write_jsonl

from papo.data import MixedProblems
from papo.training import PromptStream


def rows_of(count, name):
    return [{"problem": f"{name} {i}?", "answer": str(i), "images": None} for i in range(count)]


@pytest.fixture
def sets(tmp_path):
    found = {}
    for name, count in (("small", 3), ("large", 10)):
        (tmp_path / name).mkdir()
        write_jsonl(tmp_path / name, rows_of(count, name))
        found[name] = table(path=str(tmp_path / name))
    return found


def shown(mixed):
    kept, _ = mixed.usable(lambda problem: 1)
    return Counter(kept[i].id.split("/")[0] for i in range(len(kept))), kept


def test_a_mixture_holds_the_problems_of_its_sets_with_ids_of_their_own(sets):
    mixed = MixedProblems(sets=sets, weights={})
    assert len(mixed) == 13
    assert [mixed[0].id, mixed[3].id, mixed.problem_id(12)] == [
        "small/train-0",
        "large/train-0",
        "large/train-9",
    ]
    assert mixed.census.problems == 13
    assert len({mixed.problem_id(i) for i in range(13)}) == 13
    with pytest.raises(IndexError):
        mixed[13]


@pytest.mark.parametrize(
    ("weights", "counts"),
    [
        ({}, {"small": 10, "large": 10}),
        ({"small": 0.3, "large": 1}, {"small": 3, "large": 10}),
        ({"small": 3, "large": 1}, {"small": 30, "large": 10}),
        ({"small": 1, "large": 10}, {"small": 3, "large": 30}),
    ],
)
def test_a_pass_shows_every_problem_and_each_set_by_its_weight(sets, weights, counts):
    found, kept = shown(MixedProblems(sets=sets, weights=weights))
    assert found == counts
    each = Counter(kept[i].id for i in range(len(kept)))
    assert len(each) == 13
    for name in sets:  # within one of one another
        of_set = [count for id, count in each.items() if id.startswith(name)]
        assert max(of_set) - min(of_set) <= 1


def test_what_is_unusable_in_one_set_is_left_out_and_counted(sets, tmp_path):
    write_jsonl(tmp_path / "small", [*rows_of(2, "small"), {"problem": "?", "answer": ""}])
    mixed = MixedProblems(sets=sets, weights={})
    kept, report = mixed.usable(lambda problem: 1)
    assert (report.seen, report.kept, report.dropped) == (13, 12, {"empty_answer": 1})
    assert Counter(kept[i].id for i in range(len(kept)))["small/train-0"] == 5


def test_the_same_problems_come_in_the_same_order_from_every_start(sets, tmp_path):
    def stream(seed=3):
        again = {name: table(path=str(tmp_path / name)) for name in sets}
        kept, _ = MixedProblems(sets=again, weights={"small": 2}).usable(lambda problem: 1)
        return PromptStream(source=kept, seed=seed)

    whole = [problem.id for problem in stream().take(0, 60)]
    # A resumed run, or another rank, knows a position alone.
    assert [problem.id for problem in stream().take(25, 35)] == whole[25:]
    assert [problem.id for problem in stream(seed=4).take(0, 60)] != whole


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"small": 0}, r"data\.weights\.small=0"),
        ({"small": float("inf")}, "positive and finite"),
        ({"others": 1}, r"data\.weights\.others weighs a set that is not one of small, large"),
    ],
)
def test_impossible_weights_are_refused(sets, weights, said):
    with pytest.raises(ValueError, match=said):
        MixedProblems(sets=sets, weights=weights)
    with pytest.raises(ValueError, match=r"data\.sets\.NAME="):
        MixedProblems(sets={}, weights={})


def test_weights_that_differ_too_much_are_refused(sets):
    with pytest.raises(ValueError, match="a pass that shows every problem would have"):
        MixedProblems(sets=sets, weights={"large": 1e-9}).usable(lambda problem: 1)


def test_messages_name_the_keys_of_a_set(sets):
    MixedProblems(sets=sets, weights={})
    sets["small"].filter = {"level": 1}
    with pytest.raises(ValueError, match=r"data\.sets\.small\.filter"):
        len(sets["small"])
