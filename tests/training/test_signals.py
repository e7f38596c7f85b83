"""A signal ends the command with its code, one line says how to go on, and going on loses nothing."""

import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
import torch
from command import REPOSITORY, SHORT, contents, result, run_command, sent_on_call

SECOND_CALL = 2


@pytest.fixture(autouse=True)
def interrupts_are_heard():
    """A shell starts what it runs in the background deaf to SIGINT, and so are these tests then."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def last_line(outcome):
    """The one line; whatever else is on stderr is a fault."""
    [line] = outcome.stderr.splitlines()
    return line


def while_the_model_loads():
    from papo.models import loading

    return loading, "build_policy", 1


def before_training():
    from papo.commands.training import run

    return run, "evaluate_now", 1


def in_a_rollout():
    from papo.training import collect

    return collect, "group_advantages", SECOND_CALL


def after_training():
    from papo.commands.training import run

    return run, "evaluate_now", SECOND_CALL


@pytest.mark.parametrize(
    ("moment", "number", "held"),
    [
        (while_the_model_loads, signal.SIGTERM, "holds no checkpoint yet"),
        (before_training, signal.SIGUSR1, "holds no checkpoint yet"),
        (in_a_rollout, signal.SIGTERM, "is saved up to rollout_000001"),
        (in_a_rollout, signal.SIGINT, "is saved up to rollout_000001"),
        (after_training, signal.SIGTERM, "is saved up to rollout_000002"),
    ],
)
def test_a_signal_ends_the_run_with_its_code_and_names_what_goes_on(
    moment, number, held, tmp_path, monkeypatch
):
    owner, name, call = moment()
    sent_on_call(monkeypatch, owner, name, number, call=call)
    outcome = run_command(f"run_dir={tmp_path}")
    assert outcome.code == 128 + number
    assert last_line(outcome) == (
        f"interrupted by {number.name}: {tmp_path} {held}. "
        f"Go on with: python train.py run_dir={tmp_path} resume=true"
    )
    assert result(tmp_path)["status"] == "interrupted"
    assert number.name in result(tmp_path)["error"]
    assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)


def test_a_signal_before_anything_is_begun_says_so(tmp_path, monkeypatch):
    from papo.commands.training import job

    sent_on_call(monkeypatch, job, "preflight", signal.SIGTERM)
    outcome = run_command(f"run_dir={tmp_path}", "seed=3")
    assert outcome.code == 143
    assert "nothing was begun" in last_line(outcome)
    assert shlex.split(last_line(outcome).rpartition("with: ")[2])[2:] == [
        *SHORT,
        f"run_dir={tmp_path}",
        "seed=3",
    ]


def test_a_warning_is_answered_at_the_end_of_the_rollout_with_a_checkpoint(tmp_path, monkeypatch):
    from papo.training import collect

    rare = ("training.num_rollouts=3", "callbacks.checkpoint.every_rollouts=100")
    whole = tmp_path / "whole"
    assert run_command(*rare, f"run_dir={whole}").code == 0

    run = tmp_path / "warned"
    with monkeypatch.context() as patch:
        sent_on_call(patch, collect, "group_advantages", signal.SIGUSR1, call=SECOND_CALL)
        outcome = run_command(*rare, f"run_dir={run}")
    assert outcome.code == 138
    assert "is saved up to rollout_000002" in last_line(outcome)
    assert run_command(*rare, f"run_dir={run}", "resume=true").code == 0
    assert (run / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


def test_a_signal_stops_the_whole_multirun_and_names_its_command(tmp_path, monkeypatch):
    from papo.training import collect

    sent_on_call(monkeypatch, collect, "group_advantages", signal.SIGTERM, call=SECOND_CALL)
    folder = tmp_path / "multi run"
    jobs = ("seed=1,2,3", "training.num_rollouts=1")
    outcome = run_command(*jobs, f"run_dir='{folder}'", multirun=True)
    assert outcome.code == 143
    assert result(folder / "0")["status"] == "finished"
    assert result(folder / "1")["status"] == "interrupted"
    assert not (folder / "2").exists()
    command = shlex.split(last_line(outcome).rpartition("with: ")[2])
    assert command[:3] == ["python", "train.py", "-m"]
    monkeypatch.undo()
    before = contents(folder / "0")
    assert run_command(*command[3:], short=False, multirun=True).code == 0
    assert contents(folder / "0") == before
    assert {result(folder / job)["status"] for job in "012"} == {"finished"}


def test_a_second_interrupt_kills_and_a_second_term_waits_for_the_files(tmp_path):
    script = (
        "import os, signal, time\n"
        "from papo.machine.signals import Interrupted, interruptible\n"
        "with interruptible():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(5)\n"
        "    except Interrupted:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        print('closing', flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        print('closed', flush=True)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGINT
    assert ended.stdout == "closing\n"
    assert ended.stderr == ""


def test_handlers_of_a_launcher_stay_its_own():
    from papo.machine.signals import interruptible

    def bypass(*_):
        """As submitit, which requeues a job itself."""

    before = signal.signal(signal.SIGTERM, bypass)
    try:
        with interruptible():
            assert signal.getsignal(signal.SIGTERM) is bypass
    finally:
        signal.signal(signal.SIGTERM, before)


SRUN = """#!/bin/bash
export SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=1 SLURM_NTASKS=1 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0
echo $$ > "$FAKE/step"
exec setsid "$@"
"""
SCONTROL = """#!/bin/bash
echo "$@" >> "$FAKE/requeued"
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch, forked_python):
    """The commands of a scheduler, and the variables of a job of one task; returns their folder."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    python = f'#!/bin/bash\nexec "{forked_python}" "$@"\n'
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "python": python}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    script = (REPOSITORY / "docs" / "scale.md").read_text().partition("```bash\n")[2]
    (folder / "train.sbatch").write_text(script.partition("```")[0])
    monkeypatch.setenv("FAKE", str(folder))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    job = {"JOB_ID": "1234", "JOB_NAME": "papo", "NTASKS": "1", "PROCID": "0", "LOCALID": "0"}
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    return folder


@pytest.mark.slow
def test_a_preempted_job_is_requeued_and_ends_as_if_nothing_had_happened(slurm, tmp_path):
    settings = (
        *(*SHORT, "training.num_rollouts=10"),
        *("callbacks.checkpoint.every_rollouts=100", "callbacks.rollout_table.every_rollouts=0"),
    )
    run, whole = tmp_path / "run", tmp_path / "whole"
    job = ["bash", str(slurm / "train.sbatch"), *settings, f"run_dir={run}"]
    with subprocess.Popen(job, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as first:
        table, deadline = run / "metrics.csv", time.monotonic() + 120
        while time.monotonic() < deadline and first.poll() is None:
            if table.exists() and table.read_text().count("\n") > 2:
                break
            time.sleep(0.01)
        assert first.poll() is None, first.stderr.read()
        # As --signal=USR1@SECONDS does: to every process of the step.
        os.killpg(int((slurm / "step").read_text()), signal.SIGUSR1)
        _, errors = first.communicate(timeout=120)
    assert "interrupted by SIGUSR1" in errors, errors
    assert (slurm / "requeued").read_text() == "requeue 1234\n"
    [checkpoint] = (run / "checkpoints").iterdir()
    assert 2 <= int(checkpoint.stem[-6:]) < 10

    subprocess.run(job, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL, timeout=120)
    assert result(run)["status"] == "finished"
    assert (slurm / "requeued").read_text() == "requeue 1234\n"
    assert run_command(*settings, f"run_dir={whole}", short=False).code == 0
    assert (run / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    last = "checkpoints/rollout_000010.ckpt"
    got, expected = (torch.load(one / last, weights_only=True) for one in (run, whole))
    for name, weight in expected["state_dict"].items():
        assert torch.equal(got["state_dict"][name], weight)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["seed=3"], "Nothing was begun. Go on with: python train.py seed=3"),
        (["-m", "+sweep=lab_gamma"], "Go on with: python train.py -m +sweep=lab_gamma resume=true"),
        (["-m", "run_dir=a"], "Go on with: python train.py -m run_dir=a resume=true"),
        (
            ["-m", "seed=1,2"],
            "Go on with: python train.py -m seed=1,2 resume=true and hydra.sweep.dir=FOLDER, "
            "where its jobs are",
        ),
    ],
)
def test_a_signal_outside_a_job_ends_the_command_too(arguments, expected, monkeypatch, capsys):
    from papo.commands import front_door

    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    assert front_door.command(lambda: os.kill(os.getpid(), signal.SIGTERM)) == 143
    assert capsys.readouterr().err == f"interrupted by SIGTERM. {expected}\n"
