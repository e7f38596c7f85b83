"""Hostile responses, as many as fit into some seconds of processor time, through real grading processes.

PAPO_FUZZ_SECONDS is that time, of this process and its workers together (10 where it is not set);
PAPO_FUZZ_SEED draws others. Nothing here depends on how busy the machine is, but how many fit.
"""

import json
import os
import random
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from hostile_answers import KINDS, code, hostile_answer, hostile_response

from papo.rewards import AnswerGrader
from papo.rewards.grader_names import GRADER_NAMES
from papo.rewards.grading_pool import WORKER_MEMORY_BYTES, Grading, GradingPool, Verdict
from papo.types import Problem

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc"),
    pytest.mark.timeout(1_800),
]

SECONDS = float(os.environ.get("PAPO_FUZZ_SECONDS", "10"))
SEED = int(os.environ.get("PAPO_FUZZ_SEED", "0"))
DEADLINE = 0.5
# A worker's clock ticks a hundred times a second; what it does between a timer's end and its own is in here too.
GRACE = 0.2
# Mapped before a worker limits itself.
SLACK = 64 * 2**20
RIGHT = [
    ("0.5", r"\frac{1}{2}"),
    ("12", "12"),
    ("B", "B"),
    (r"2\sqrt{13}", r"2 \sqrt { 13 }"),
    (r"-\frac{3}{4}", "-0.75"),
    ("x+1", "1+x"),
]
# What no bait is by accident, however many there are.
UNMET = [r"\frac{71}{113}", r"2\sqrt{13}", "-0.7519", "x+y^3", "scalene triangle"]
WRONG = [("3", "4"), ("A", "B"), (r"\sqrt{2}", r"\sqrt{3}")]


def stat_of(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name, from the state on; [] where the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return []


def children() -> set[int]:
    """The ids of this process's children, zombies included."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        fields = stat_of(int(folder.name))
        if fields and int(fields[1]) == os.getpid():
            found.add(int(folder.name))
    return found


def worker_seconds(pool: GradingPool) -> float:
    """Processor time of all workers that there ever were, in seconds."""
    tick = os.sysconf("SC_CLK_TCK")
    ended = os.times()
    alive = [stat_of(worker._process.pid) for worker in pool._workers]
    now = sum(int(fields[11]) + int(fields[12]) for fields in alive if fields) / tick
    return now + ended.children_user + ended.children_system


def own_seconds() -> float:
    mine = os.times()
    return mine.user + mine.system


def peak_memory(pool: GradingPool) -> int:
    """The largest address space that a living worker ever had, in bytes."""
    peaks = [0]
    for worker in pool._workers:
        status = Path(f"/proc/{worker._process.pid}/status").read_text("utf-8")
        peaks += [int(line.split()[1]) * 1024 for line in status.splitlines() if "VmPeak" in line]
    return max(peaks)


@pytest.fixture
def canary(tmp_path):
    """A file that hostile text tries to make; nobody may."""
    path = tmp_path / "canary"
    yield path
    assert not list(tmp_path.iterdir()), "an answer was evaluated"


@pytest.mark.parametrize("grader", GRADER_NAMES)
def test_no_answer_runs_as_code(grader, canary):
    answers = code(canary)
    with GradingPool(num_workers=1, deadline_seconds=DEADLINE) as pool:
        pairs = [(text, "7") for text in answers] + [("7", text) for text in answers]
        assert set(pool.grade([Grading(grader, *pair) for pair in pairs])) == {Verdict.WRONG}


def test_no_hostile_answer_costs_more_than_its_deadline(canary):
    draw, before = random.Random(SEED), children()
    seen: Counter[tuple[str, Verdict]] = Counter()
    slowest = 0.0
    with GradingPool(num_workers=1, deadline_seconds=DEADLINE) as pool:
        started = worker_seconds(pool) + own_seconds()
        while worker_seconds(pool) + own_seconds() - started < SECONDS / 2 or not seen:
            kind = draw.choice(sorted(KINDS))
            answer = hostile_answer(draw, kind, canary)
            if draw.random() < 0.98:
                answer = answer[:1_000]  # what a box may hold; a few come at their full length
            pair = (answer, draw.choice(UNMET))
            if draw.random() < 0.1:  # data may be hostile too
                pair = pair[::-1]
            # The worker that this starts, if there is none, is no part of the time of what follows.
            right = Grading(
                draw.choice(GRADER_NAMES[:1] + GRADER_NAMES[2:]), *draw.choice(RIGHT[:2])
            )
            assert pool.grade([right]) == [Verdict.CORRECT], right
            hostile = Grading(draw.choice(GRADER_NAMES), *pair)
            begun = worker_seconds(pool)
            (verdict,) = pool.grade([hostile])
            spent = worker_seconds(pool) - begun
            assert spent <= DEADLINE + GRACE, (spent, hostile)
            assert verdict is not Verdict.CRASH, hostile
            # A mutant of a real answer may be right.
            assert verdict is not Verdict.CORRECT or kind in ("real", "salad"), hostile
            slowest = max(slowest, spent)
            seen[kind, verdict] += 1
            if seen.total() % 20 == 0:
                assert len(children() - before) <= 1
                assert peak_memory(pool) <= WORKER_MEMORY_BYTES + SLACK
    assert children() == before
    retries = pool.retries
    print(
        f"{seen.total()} hostile answers, at most {slowest:.2f} s each, {retries} retries",
        file=sys.stderr,
    )
    print(json.dumps({f"{kind}: {verdict.value}": n for (kind, verdict), n in sorted(seen.items(), key=str)}), file=sys.stderr)  # fmt: skip
    assert retries == 0


def test_every_plain_answer_among_hostile_responses_keeps_its_verdicts(canary):
    draw, before = random.Random(SEED + 1), children()
    counts: Counter[str] = Counter()
    plain = [(rf"<think>so</think> \boxed{{{given}}}", truth) for given, truth in RIGHT + WRONG]
    grader = AnswerGrader(grader="combined", deadline_seconds=DEADLINE, num_workers=2)
    pool = grader._pool
    started = worker_seconds(pool) + own_seconds()
    try:
        alone = dict(zip(plain, graded(grader, plain), strict=True))
        assert [one.correct for one in alone.values()] == [True] * len(RIGHT) + [False] * len(WRONG)
        while worker_seconds(pool) + own_seconds() - started < SECONDS / 2 or not counts:
            batch = plain + [
                (hostile_response(draw, draw.choice(sorted(KINDS)), canary), draw.choice(RIGHT)[1])
                for _ in range(27)
            ]
            draw.shuffle(batch)
            # As something outside kills a process: at most one of a batch, so that no answer loses two.
            killing = threading.Timer(0.2 * draw.random(), kill_one, (pool, draw.randrange(2)))
            killing.start()
            found = graded(grader, batch)
            killing.join()
            counts["killed"] += 1
            for pair, one in zip(batch, found, strict=True):
                assert set(one.verdicts) == set(GRADER_NAMES)
                assert "crash" not in one.verdicts.values(), pair
                counts.update(one.verdicts.values())
                if pair in alone:
                    counts["plain"] += 1
                    assert one == alone[pair], pair
            assert len(children() - before) <= 2
            assert peak_memory(pool) <= WORKER_MEMORY_BYTES + SLACK
    finally:
        grader.close()
    assert children() == before
    assert pool.retries <= counts["killed"]
    print(f"{pool.retries} retries, {dict(counts)}", file=sys.stderr)


def kill_one(pool, number):
    for worker in pool._workers[number : number + 1]:
        worker._process.kill()


def graded(grader, pairs):
    problems = [
        Problem(id=str(index), question="", answer=truth, images=(), source="fuzz")
        for index, (_, truth) in enumerate(pairs)
    ]
    return grader(problems, [text for text, _ in pairs])
