"""The number of ranks changes no byte of what an evaluation writes, however it came about."""

import json
import os
import signal
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from commands import EVALUATION, TESTS, command
from pool import on_ranks, outcomes

pytestmark = pytest.mark.dist

# The ranks find it there too.
sys.path.insert(0, str(TESTS / "evaluation"))

TABLES = ("responses.jsonl", "problems.jsonl")


class TwoPrompts:
    """Two prompts per problem; problem 1 cannot be shown like this."""

    name = "bank"
    seed = 0
    hides = False

    def __call__(self, item, policy, *, num_responses):
        return () if item.index == 1 else policy.encode([item.problem, item.problem])


def evaluated(ranks, folder, fail_at=None, change=None):
    """Two views of nine problems, one of them broken; returns the calls of this rank's engine.

    Args:
        ranks: of the pool.
        folder: where to.
        fail_at: (rank, call) whose sampling fails.
        change: (rank, problem) that this rank reads otherwise.
    """
    from evaluation.evaluation_parts import BoxGrader, Engine, Problems, Reader, benchmark, problem

    from papo.evaluation.run.runner import Runner
    from papo.storage.responses import ResponseStore
    from papo.views import ImageView

    class Read(Problems):
        def __getitem__(self, index):
            if change == (ranks.rank, index):
                return problem(index, answer="another")
            return super().__getitem__(index)

    engine = Engine(fail_at[1] if fail_at and fail_at[0] == ranks.rank else None)
    Runner(
        ranks=ranks,
        policy=Reader(),
        engine=engine,
        views=(ImageView(), TwoPrompts()),
        store=ResponseStore(folder, picture_side=8) if ranks.writes else None,
        num_responses=4,
        max_response_tokens=5,
        tokens_per_batch=300,
        seed=7,
    ).run([benchmark(Read(9, broken=[4]), grader=BoxGrader())], lambda what, count: None)
    return engine.calls


def bytes_of(folder, names=TABLES):
    return {name: (Path(folder) / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    from papo.parallel import Ranks

    folder = tmp_path_factory.mktemp("alone")
    return evaluated(Ranks(), folder), bytes_of(folder)


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_take_turns_and_write_the_tables_of_one(size, tmp_path, alone):
    calls, tables = alone
    by_rank = on_ranks(evaluated, tmp_path, size=size)
    assert bytes_of(tmp_path) == tables
    done = [str(call) for rank in by_rank for call in rank]
    assert sorted(done) == sorted(map(str, calls))
    assert all(by_rank)


@pytest.mark.parametrize("rank", [0, 1])
def test_what_one_rank_broke_off_any_number_goes_on_with(rank, tmp_path, alone):
    from papo.parallel import Ranks

    ends = outcomes(evaluated, tmp_path, (rank, 1))
    assert ends[rank][1].startswith("KeyboardInterrupt")
    assert ends[1 - rank][1].startswith(f"PeerFailed: rank {rank}: KeyboardInterrupt")
    done = len((tmp_path / "responses.jsonl").read_bytes().splitlines())
    assert 0 < done < len(alone[1]["responses.jsonl"].splitlines())
    if rank == 0:
        evaluated(Ranks(), tmp_path)
    else:
        on_ranks(evaluated, tmp_path, size=3)
    assert bytes_of(tmp_path) == alone[1]


def test_ranks_that_read_other_problems_are_refused(tmp_path):
    for kind, text in outcomes(evaluated, tmp_path, None, (1, 3)):
        assert kind == "raised"
        assert "RanksDiffer" in text
        assert "give all the same files" in text


def probed(ranks, folder):
    """Four problems, a pass each; returns what this rank scored."""
    from model_fixtures import noise_image, problem, tiny_policy

    from papo.evaluation import Benchmark, PerceptionProbe, boxed_answer
    from papo.evaluation.scored_folder import run_scoring
    from papo.masking import RandomPatchMask

    policy, scored = tiny_policy(), []
    measure = policy.measure

    def counted(groups, *arguments, **keywords):
        scored.append([group.problem.id for group in groups])
        return measure(groups, *arguments, **keywords)

    policy.measure = counted
    problems = [
        problem("<image> How many?", images=(noise_image(56, 56, n),), answer="12", id=f"p{n}")
        for n in range(4)
    ]
    problems.insert(1, problem("No picture.", images=(), answer="3", id="text"))
    run_scoring(
        PerceptionProbe(
            mask=RandomPatchMask(ratio=0.6, grid="patch", raw_square_pixels=14, seed=0),
            num_masks=3,
            num_problems=None,
            num_responses=1,
            references=boxed_answer,
            tokens_per_pass=1,
            seed=0,
        ),
        policy=policy,
        benchmarks=[
            Benchmark(
                key="some",
                label="some",
                group="other",
                published_column=None,
                problems=problems,
                grader=lambda problems, texts: (),
            )
        ],
        folder=folder,
        bootstrap_seed=0,
        progress=lambda total, done: nullcontext(lambda what, count: None),
        ranks=ranks,
    )
    return scored


def test_the_probe_of_ranks_writes_the_files_of_one(tmp_path):
    from evaluation.evaluation_parts import record

    from papo.parallel import Ranks

    one, several = tmp_path / "one", tmp_path / "several"
    for folder in (one, several):
        folder.mkdir()
        line = record(benchmark="some", response="1 2 3").to_line()
        (folder / "responses.jsonl").write_text(line)
    passes = probed(Ranks(), one)
    by_rank = on_ranks(probed, several, size=2)
    assert len(passes) > 3
    assert by_rank == [passes[0::2], passes[1::2]]
    files = sorted(path.name for path in one.glob("perception_kl*"))
    assert len(files) > 1
    assert bytes_of(several, files) == bytes_of(one, files)


def lab_report(ranks):
    from lab_module import lab_policy

    from papo.lab import evaluate_lab, held_out_sets, report
    from papo.rollout import SharedPrefillSampler

    report.PROMPTS_AT_ONCE = 2
    policy = lab_policy()
    engine = SharedPrefillSampler(
        policy=policy, temperature=1.0, top_p=1.0, top_k=None, max_response_tokens=24, max_rows=64
    )
    sampled, sample = [], engine.sample

    class Counted:
        def follow(self, source, version):
            pass

        def sample(self, groups, *arguments):
            sampled.extend(group.problem.id for group in groups)
            return sample(groups, *arguments)

    sets = held_out_sets(zipf_exponent=1.0, difficulty=1.0, size=5)
    found = evaluate_lab(
        policy, Counted(), sets, num_problems=5, num_responses=3, seed=0, ranks=ranks
    )
    return found.to_dict(), len(sampled)


def test_the_report_of_the_lab_is_shared_and_the_same_on_all_ranks(monkeypatch):
    from papo.lab import report
    from papo.parallel import Ranks

    monkeypatch.setattr(report, "PROMPTS_AT_ONCE", report.PROMPTS_AT_ONCE)
    alone, count = lab_report(Ranks())
    (first, mine), (second, theirs) = on_ranks(lab_report)
    assert first == second == alone
    assert mine + theirs == count == 10
    assert 4 <= mine <= 6


COMMAND_TABLES = (*TABLES, "summary.json", "table.csv", "report.md", "vision_dependency.json")
VIEWS = ("views=vision",)


def evaluation(ranks, arguments, prepare=None):
    return command(ranks, "evaluate", arguments, prepare)


def test_the_command_on_two_ranks_writes_what_it_writes_on_one(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    arguments = [*EVALUATION, *VIEWS]
    (single,) = on_ranks(evaluation, [*arguments, "devices=1", f"run_dir={one}"], size=1)
    both = on_ranks(evaluation, [*arguments, f"run_dir={two}"])
    assert [code for code, _, _ in (single, *both)] == [0, 0, 0], (single, both)
    assert bytes_of(two, COMMAND_TABLES) == bytes_of(one, COMMAND_TABLES)
    assert both[1][1:] == ("", "")
    assert both[0][2] == single[2] == ""
    assert (
        both[0][1].replace(str(two), "").splitlines()[:-3]
        == (single[1].replace(str(one), "").splitlines()[:-3])
    )
    assert json.loads((two / "result.json").read_text())["status"] == "finished"


def fails_on_rank_1(door, ranks):
    from papo.evaluation.run import runner

    if ranks.rank == 1:

        def sample(*arguments):
            raise MemoryError("too large. Lower evaluation.tokens_per_batch")

        runner.sample_prompts = sample


def test_an_error_on_one_rank_is_said_once_and_written_down_and_one_process_goes_on(tmp_path):
    arguments = [*EVALUATION, f"run_dir={tmp_path}"]
    first, second = on_ranks(evaluation, arguments, fails_on_rank_1)
    assert (first[0], second[0]) == (1, 1)
    assert first[2] == ""
    assert second[2] == "error (rank 1): too large. Lower evaluation.tokens_per_batch\n"
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["status"] == "failed"
    assert result["error"].startswith("PeerFailed: rank 1: MemoryError: too large.")
    again = [*arguments, "devices=1", "resume=true"]
    ((code, _, err),) = on_ranks(evaluation, again, size=1)
    assert (code, err) == (0, "")
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "finished"


def ends_by(number, rank):
    """Has a rank send itself a signal in the middle of its first batch."""

    def prepare(door, ranks):
        from papo.evaluation.run import runner

        sample = runner.sample_prompts

        def signalled(*arguments):
            if ranks.rank == rank:
                os.kill(os.getpid(), number)
            return sample(*arguments)

        runner.sample_prompts = signalled

    return prepare


def evaluation_ended_by(ranks, arguments, number, rank):
    return command(ranks, "evaluate", arguments, ends_by(number, rank))


def test_a_signal_to_one_rank_interrupts_all_and_is_said_once(tmp_path):
    arguments = [*EVALUATION, f"run_dir={tmp_path}"]
    ends = on_ranks(evaluation_ended_by, arguments, signal.SIGTERM, 1)
    assert [code for code, _, _ in ends] == [128 + signal.SIGTERM] * 2
    assert ends[1][2] == ""
    [line] = ends[0][2].splitlines()
    assert line.startswith(f"interrupted by SIGTERM: {tmp_path} keeps what is graded. Go on with: ")
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "interrupted"


def test_the_death_of_the_rank_that_writes_is_written_down_by_another(tmp_path):
    arguments = [*EVALUATION, f"run_dir={tmp_path}"]
    ends = outcomes(evaluation_ended_by, arguments, signal.SIGKILL, 0)
    assert ends[0] == ("ended", -signal.SIGKILL)
    code, _, err = ends[1][1]
    assert (code, err) == (1, "error: rank 0: it ended without a word\n")
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["status"] == "failed"
    assert result["error"] == "PeerFailed: rank 0: it ended without a word"


def test_ranks_with_other_settings_are_refused_before_anything_is_written(tmp_path):
    by_rank = [[*EVALUATION, f"run_dir={tmp_path / 'run'}", f"seed={seed}"] for seed in (0, 1)]
    ends = on_ranks(evaluation, by_rank)
    said = "".join(err for _, _, err in ends)
    assert [code for code, _, _ in ends] == [1, 1]
    assert len(said.splitlines()) == 1
    assert "all ranks have the same seed; rank 0 has 0 and rank 1 has 1" in said
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["devices=0"], "devices is a whole number of at least 1; got 0"),
        (["num_nodes=2"], "torchrun --nnodes=2 --nproc_per_node=1"),
        (["+trainer.devices=2"], "unknown key trainer"),
    ],
)
def test_impossible_numbers_of_processes_are_refused(settings, says, tmp_path, capfd, monkeypatch):
    from papo.commands import evaluate, front_door

    monkeypatch.setattr(front_door, "_failures", [])
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *settings, f"run_dir={tmp_path / 'run'}"])
    assert front_door.command(evaluate.main, on_ranks=True) == 1
    err = capfd.readouterr().err
    assert says in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "run" / "run.json").exists()
