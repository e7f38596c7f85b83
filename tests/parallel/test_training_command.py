"""train.py on two ranks: one run on the disk and on the screen, and data that are looked at once."""

import json
from types import SimpleNamespace

import pytest
from commands import TRAINING, command
from pool import on_ranks, outcomes

pytestmark = pytest.mark.dist

WATCHED = (
    "+callbacks.best._target_=lightning.pytorch.callbacks.ModelCheckpoint",
    *("+callbacks.best.monitor=reward/mean", "+callbacks.best.mode=max"),
    *("+callbacks.best.save_top_k=1", "+callbacks.best.filename='best_{rollout_step:.0f}'"),
    "+callbacks.best.auto_insert_metric_name=false",
    "+callbacks.rate._target_=lightning.pytorch.callbacks.LearningRateMonitor",
    # A reward never exceeds 9, so the second rollout is the first without improvement.
    "+callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping",
    *("+callbacks.stop.monitor=reward/mean", "+callbacks.stop.mode=max"),
    *("+callbacks.stop.min_delta=9", "+callbacks.stop.patience=1"),
    "validation.every_rollouts=1",
    "logger=all",
)


def training(ranks, arguments):
    return command(ranks, "train", arguments)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same run on one rank and on two, with what each rank wrote to the terminal."""
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    arguments = [*TRAINING, *WATCHED]
    alone = on_ranks(training, [*arguments, "trainer.devices=1", f"run_dir={one}"], size=1)
    both = on_ranks(training, [*arguments, f"run_dir={two}"])
    assert [code for code, _, _ in (*alone, *both)] == [0, 0, 0], (alone, both)
    return one, two, alone + both


def test_callbacks_and_loggers_see_one_run(runs):
    one, two, _ = runs
    for run in (one, two):
        assert len(list((run / "wandb").glob("offline-run-*"))) == 1
        assert len(list((run / "tensorboard").glob("events.*"))) == 1
    names = [sorted(path.name for path in (run / "checkpoints").iterdir()) for run in (one, two)]
    assert names[0] == names[1]
    assert any(name.startswith("best_") for name in names[0])
    results = [json.loads((run / "result.json").read_text()) for run in (one, two)]
    assert results[1]["ended_early"] == results[0]["ended_early"]
    assert "after rollout 2 of 3" in results[1]["ended_early"]
    assert results[1]["evaluation"] == results[0]["evaluation"]
    assert results[1]["best"] == results[0]["best"]
    evaluations = [(run / "evaluations.jsonl").read_text() for run in (one, two)]
    assert evaluations[1] == evaluations[0]


def test_the_table_of_rollouts_and_its_pictures_are_those_of_one_process(runs):
    one, two, _ = runs
    tables = [
        [json.loads(line) for line in (run / "rollouts.jsonl").read_text().splitlines()]
        for run in (one, two)
    ]
    assert len(tables[0]) == 2 * 2 * 2
    for mine, theirs in zip(*tables, strict=True):
        assert mine.pop("perception_kl") == pytest.approx(theirs.pop("perception_kl"), rel=1e-3)
        assert mine == theirs
    pictures = sorted(path.name for path in (one / "rollouts").iterdir())
    assert pictures == sorted(path.name for path in (two / "rollouts").iterdir())
    for name in pictures:
        assert (one / "rollouts" / name).read_bytes() == (two / "rollouts" / name).read_bytes()


def test_one_rank_speaks(runs):
    _, _, ((_, alone, _), (_, first, _), (_, second, silent)) = runs
    assert (second, silent) == ("", "")
    assert first.count("rollout 2/3") == 1
    for once in ("scoring: ", "memory: ", "Everything is in"):
        assert alone.count(once) == first.count(once) == 1


def warned(ranks):
    """What a rank says of a warning of this project, and of one of a library."""
    import logging

    def main():
        logging.getLogger("papo.rollout.sampler").warning("half the rows")
        logging.getLogger("papo.rollout.sampler").info("a detail")
        logging.getLogger("transformers").warning("a library's")
        print("a line")

    import commands

    commands.importlib = SimpleNamespace(import_module=lambda name: SimpleNamespace(main=main))
    return commands.command(ranks, "any", ["here"])


def test_a_warning_of_another_rank_bears_its_number():
    (_, out, _), (_, silent, said) = on_ranks(warned)
    assert out == "a line\n"
    assert (silent, said) == ("", "rank 1: half the rows\n")


def filtered(ranks, changed=()):
    """Filters 64 problems; returns the usable ones and how many problems this rank read."""
    from model_fixtures import problem

    from papo.commands.training.run import usable_problems
    from papo.data import FilteredProblems
    from papo.types import Needs

    class Counted:
        reads = 0

        def __len__(self):
            return 64

        def __getitem__(self, index):
            self.reads += 1
            answer = "another" if (ranks.rank, index) in changed else "1"
            return problem(f"number {index}", images=(), answer=answer, id=f"p{index}")

        def usable(self, prompt_length, reading):
            positions = [i for i in range(64) if prompt_length(self[i]) and i % 3]
            return FilteredProblems(self, positions), SimpleNamespace(summary=lambda: "some")

    source = Counted()
    encoder = SimpleNamespace(prompt_length=lambda problem: 5, identity=lambda: "")
    usable = usable_problems(
        SimpleNamespace(
            source=source,
            settings=SimpleNamespace(prompts_per_rollout=4),
            objective=SimpleNamespace(needs=Needs()),
        ),
        SimpleNamespace(encoder=encoder),
        SimpleNamespace(compare_problems=lambda fingerprint: None),
        ranks,
    )
    return list(usable.positions), source.reads


def test_one_rank_looks_at_all_problems_and_the_others_at_a_few():
    (positions, all_reads), (same, few_reads) = on_ranks(filtered)
    assert positions == same == [i for i in range(64) if i % 3]
    assert all_reads == 64 + few_reads
    assert few_reads <= 16


def test_ranks_with_other_data_are_refused():
    for kind, text in outcomes(filtered, [(1, 1)]):
        assert kind == "raised"
        assert "all ranks have the same problem 0; rank 0 has" in text
        assert "give all the same files" in text


def test_ranks_with_other_settings_are_refused_before_anything_is_written(tmp_path):
    by_rank = [
        [*TRAINING, f"run_dir={tmp_path / 'run'}", f"optimizer.lr={rate}"] for rate in (0.1, 0.2)
    ]
    ends = on_ranks(training, by_rank)
    said = "".join(err for _, _, err in ends)
    assert [code for code, _, _ in ends] == [1, 1]
    assert len(said.splitlines()) == 1
    assert "all ranks have the same optimizer.lr; rank 0 has 0.1 and rank 1 has 0.2" in said
    assert not (tmp_path / "run" / "run.json").exists()
