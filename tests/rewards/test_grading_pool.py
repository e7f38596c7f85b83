import copy
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from papo.rewards.grading_pool import (
    Grading,
    GradingPool,
    Verdict,
    _Worker,
    _worker_environment,
)

# Neither grader's guard knows it; math-verify expands it for minutes.
STUCK = Grading("math_verify", "(x+y)^{9999}", "x+1")
RIGHT = Grading("mathruler", "0.5", r"\frac{1}{2}")
WRONG = Grading("mathruler", "3", "4")

linux_only = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


@pytest.fixture
def pool():
    with GradingPool(num_workers=1, deadline_seconds=0.5) as pool:
        yield pool


def children_of(parent):
    """The process ids of all children, zombies included."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended while we looked
            continue
        if int(fields[1]) == parent:
            found.append(int(stat.parent.name))
    return set(found)


def is_running(pid):
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
            != "Z"
        )
    except OSError:
        return False


def test_nothing_to_grade_starts_no_worker(pool):
    assert pool.grade([]) == []
    assert pool._workers == []


def test_a_stuck_grading_is_killed_in_time_and_the_next_ones_are_graded(pool, monkeypatch):
    # The worker's own timer must do it: the wall clock is too patient here to help.
    monkeypatch.setattr("papo.rewards.grading_pool._WALL_SECONDS_PER_CPU_SECOND", 60.0)
    pool.grade([RIGHT])
    started = time.perf_counter()
    verdicts = pool.grade([RIGHT, STUCK, WRONG, RIGHT])
    assert verdicts == [Verdict.CORRECT, Verdict.TIMEOUT, Verdict.WRONG, Verdict.CORRECT]
    # 0.5 s of processor time and the start of a new worker, on a machine that may be busy
    assert time.perf_counter() - started < 20.0


def test_a_stuck_last_item_leaves_the_pool_usable(pool):
    assert pool.grade([STUCK]) == [Verdict.TIMEOUT]
    assert pool.grade([RIGHT]) == [Verdict.CORRECT]


def test_verdicts_come_in_the_order_of_the_items_from_several_workers():
    gradings = [Grading("mathruler", str(i % 7), str(i % 3)) for i in range(60)]
    expected = [Verdict.CORRECT if i % 7 == i % 3 else Verdict.WRONG for i in range(60)]
    with GradingPool(num_workers=2, deadline_seconds=5.0) as pool:
        assert pool.grade([STUCK]) == [Verdict.TIMEOUT]
        assert pool.grade(gradings) == expected


@pytest.mark.parametrize("grader", ["mathruler", "math_verify", "combined"])
def test_hostile_answers_are_wrong_run_nothing_and_end_in_time(grader, tmp_path):
    canary = tmp_path / "canary"
    answers = [
        f"__import__('os').system('touch {canary}')",
        f"open('{canary}','w')",
        "9**9**9**9",
        "9^9^9^9",
        "99999999!",
        "99999999999999999999!",
        "((2^9999)^9999)^9999",
        r"\binom{1000000000}{500000000}",
        "(" * 500 + "1" + ")" * 500,
        r"\frac{1}{" * 150 + "2" + "}" * 150,
        "{" * 900,
        "-" * 999 + "1",
        "9" * 999,
        "\x00\ud800\n\r",
        '"}\n{"correct": true}\n',
    ]
    with GradingPool(num_workers=1, deadline_seconds=1.0) as pool:
        verdicts = pool.grade([Grading(grader, answer, r"\sqrt{2}") for answer in answers])
        assert pool.grade([Grading(grader, "7", "7")]) == [Verdict.CORRECT]
    assert set(verdicts) <= {Verdict.WRONG, Verdict.TIMEOUT}
    assert verdicts[:4] == [Verdict.WRONG] * 4
    assert not canary.exists()


def test_the_same_worker_serves_later_calls(pool):
    pool.grade([RIGHT])
    first = pool._workers[0]._process.pid
    pool.grade([WRONG])
    assert [worker._process.pid for worker in pool._workers] == [first]


def kill_while_grading(monkeypatch, grading, times):
    """The first `times` workers that are given this grading are killed before they answer it."""
    give_next, left = _Worker.give_next, [times]

    def give_and_kill(worker, waiting, selector):
        strike = bool(waiting) and waiting[0][1] == grading and left[0] > 0
        if strike:
            left[0] -= 1
            os.kill(worker._process.pid, signal.SIGSTOP)
        give_next(worker, waiting, selector)
        if strike:
            os.kill(worker._process.pid, signal.SIGKILL)

    monkeypatch.setattr(_Worker, "give_next", give_and_kill)


def test_a_worker_that_is_killed_from_outside_costs_no_verdict(pool, monkeypatch, caplog):
    kill_while_grading(monkeypatch, RIGHT, times=1)
    assert pool.grade([WRONG, RIGHT, WRONG]) == [Verdict.WRONG, Verdict.CORRECT, Verdict.WRONG]
    assert pool.retries == 1
    assert "SIGKILL" in caplog.text
    assert "retry number 1" in caplog.text


def test_an_answer_that_ends_two_workers_is_wrong_and_asked_no_third_time(pool, monkeypatch):
    kill_while_grading(monkeypatch, RIGHT, times=2)
    # A third worker would find it right.
    assert pool.grade([RIGHT, WRONG]) == [Verdict.CRASH, Verdict.WRONG]
    assert pool.retries == 1


def test_a_grading_that_runs_out_of_time_is_not_asked_again(pool):
    pool.grade([RIGHT])
    assert pool.grade([STUCK]) == [Verdict.TIMEOUT]
    assert pool.retries == 0


def test_a_worker_that_is_killed_while_it_starts_is_started_once_more(monkeypatch):
    await_start, kills = _Worker._await_start, [True, False, True, True]

    def killed_first(worker):
        if kills.pop(0):
            os.kill(worker._process.pid, signal.SIGKILL)
        await_start(worker)

    monkeypatch.setattr(_Worker, "_await_start", killed_first)
    with GradingPool(num_workers=1, deadline_seconds=0.5) as pool:
        assert pool.grade([RIGHT]) == [Verdict.CORRECT]
        pool.close()
        with pytest.raises(RuntimeError, match="did not start: SIGKILL"):
            pool.grade([RIGHT])


def test_a_worker_that_never_runs_is_killed_by_the_wall_clock():
    with GradingPool(num_workers=1, deadline_seconds=0.1) as pool:
        pool.grade([RIGHT])
        os.kill(pool._workers[0]._process.pid, signal.SIGSTOP)
        assert pool.grade([RIGHT, RIGHT]) == [Verdict.TIMEOUT, Verdict.CORRECT]


def test_a_worker_that_died_idle_costs_no_verdict(pool):
    pool.grade([RIGHT])
    pool._workers[0]._process.kill()
    pool._workers[0]._process.wait()
    assert pool.grade([RIGHT]) == [Verdict.CORRECT]


@linux_only
def test_no_process_and_no_zombie_is_left_after_close():
    before = children_of(os.getpid())
    pool = GradingPool(num_workers=2, deadline_seconds=0.5)
    assert pool.grade([STUCK, RIGHT, STUCK]) == [Verdict.TIMEOUT, Verdict.CORRECT, Verdict.TIMEOUT]
    pool.close()
    assert children_of(os.getpid()) == before


@linux_only
def test_workers_end_when_their_parent_is_killed():
    script = (
        "import time\n"
        "from papo.rewards.grading_pool import Grading, GradingPool\n"
        "pool = GradingPool(num_workers=1, deadline_seconds=5.0)\n"
        "pool.grade([Grading('mathruler', '1', '1')])\n"
        "print(pool._workers[0]._process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert is_running(worker)
        parent.kill()
    give_up_at = time.monotonic() + 10.0
    while is_running(worker) and time.monotonic() < give_up_at:
        time.sleep(0.05)
    assert not is_running(worker)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_the_whole_job_turns_no_right_answer_into_a_wrong_one(pool, number):
    pool.grade([RIGHT])
    worker = pool._workers[0]
    os.kill(worker._process.pid, number)
    assert pool.grade([RIGHT]) == [Verdict.CORRECT]
    assert pool._workers == [worker]


def test_an_interrupted_call_does_not_shift_the_verdicts_of_the_next(pool, monkeypatch):
    pool.grade([RIGHT])
    monkeypatch.setattr(pool, "_collect", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        pool.grade([RIGHT])
    monkeypatch.undo()
    assert pool.grade([WRONG]) == [Verdict.WRONG]


def test_copies_start_workers_of_their_own(pool):
    pool.grade([RIGHT])
    for copied in (copy.deepcopy(pool), pickle.loads(pickle.dumps(pool))):  # noqa: S301
        assert copied._workers == []
        assert copied.grade([RIGHT]) == [Verdict.CORRECT]
        copied.close()
    assert pool.grade([RIGHT]) == [Verdict.CORRECT]


def test_a_worker_that_cannot_start_is_an_error_and_not_a_verdict(pool, monkeypatch):
    monkeypatch.setattr("papo.rewards.grading_pool.WORKER_MEMORY_BYTES", "not a number")
    with pytest.raises(RuntimeError, match="did not start"):
        pool.grade([RIGHT])


def test_workers_do_not_see_the_secrets_of_the_environment():
    environment = _worker_environment({"WANDB_API_KEY": "x", "HF_TOKEN": "y", "PATH": "/bin"})
    assert not {"WANDB_API_KEY", "HF_TOKEN"} & environment.keys()
    assert environment["PATH"] == "/bin"


def run_in_a_limited_worker(statement):
    script = f"from papo.rewards.grading_worker import _limit_resources as limit\nlimit(2**30)\n{statement}"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


def test_a_worker_cannot_take_the_memory_of_the_machine():
    assert "MemoryError" in run_in_a_limited_worker("bytearray(2**31)").stderr


def test_a_worker_cannot_write_a_file(tmp_path):
    target = tmp_path / "written"
    result = run_in_a_limited_worker(f"open({str(target)!r}, 'wb', buffering=0).write(b'x')")
    assert "File too large" in result.stderr
    assert target.read_bytes() == b""


def test_a_worker_does_not_import_torch():
    script = (
        "import sys, papo.rewards.graders, papo.rewards.grading_worker\n"
        "assert not {'torch', 'transformers', 'numpy'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"num_workers": 0, "deadline_seconds": 1.0}, "reward.num_workers"),
        ({"num_workers": 1, "deadline_seconds": 0.0}, "reward.deadline_seconds"),
        ({"num_workers": 1, "deadline_seconds": float("nan")}, "reward.deadline_seconds"),
    ],
)
def test_impossible_settings_name_their_key(settings, key):
    with pytest.raises(ValueError, match=key):
        GradingPool(**settings)
