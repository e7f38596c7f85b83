"""Jobs that a launcher starts: what is asked of SLURM, where runs land, and who requeues them when."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import cache

import fake_slurm
import numpy as np
import pytest
from training.command import REPOSITORY, SHORT, result, run_command

CLUSTER = ("hydra/launcher=cluster", "+experiment=papo_g_7b", "trainer=replicas")


@cache
def launcher(*overrides):
    """The settings with which `python train.py -m OVERRIDES` submits its jobs."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from papo.commands import front_door

    with initialize_config_dir(config_dir=front_door.CONFIG_FOLDER, version_base="1.3"):
        config = GlobalHydra.instance().hydra.compose_config(
            "train", list(overrides), run_mode=RunMode.MULTIRUN, with_log_configuration=False
        )
        return OmegaConf.to_container(config.hydra.launcher, resolve=True)


def submitted(folder, monkeypatch, *overrides):
    """The script that submitit gives to sbatch for such a job."""
    from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
    from omegaconf import OmegaConf
    from submitit import AutoExecutor

    for name, value in fake_slurm.install(folder / "bin").items():
        monkeypatch.setenv(name, value)
    settings = dict(launcher(*overrides))
    assert settings.pop("_target_").endswith("SlurmLauncher")
    settings.pop("submitit_folder")
    executor = AutoExecutor(
        cluster="slurm", folder=folder, slurm_max_num_timeout=settings.pop("max_num_timeout")
    )
    base = set(OmegaConf.structured(BaseQueueConf).keys())
    executor.update_parameters(
        **{name if name in base else f"slurm_{name}": value for name, value in settings.items()}
    )
    return executor._executor._make_submission_file_text("python job", "uid").splitlines()


@pytest.mark.parametrize(
    ("overrides", "nodes", "devices"),
    [
        (("trainer.devices=8", "trainer.num_nodes=2"), 2, 8),
        (("trainer.devices=4",), 1, 4),
        (("trainer=gpu",), 1, 1),
    ],
)
def test_a_job_has_a_task_and_a_gpu_per_device(overrides, nodes, devices, tmp_path, monkeypatch):
    script = submitted(tmp_path, monkeypatch, *CLUSTER, *overrides, "run_dir=F")
    assert {
        f"#SBATCH --nodes={nodes}",
        f"#SBATCH --ntasks-per-node={devices}",
        f"#SBATCH --gpus-per-node={devices}",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --time=1440",
        "#SBATCH --signal=USR2@900",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        "export SLURM_KILL_BAD_EXIT=1",
    } <= {*script}
    # Set before the step starts.
    [step] = [number for number, line in enumerate(script) if line.startswith("srun ")]
    assert script.index("export SLURM_KILL_BAD_EXIT=1") < step
    assert launcher(*CLUSTER, *overrides, "run_dir=F")["max_num_timeout"] == 20


def test_a_job_that_slurm_starts_again_continues(monkeypatch):
    from conf.composing import composed

    assert composed("train", []).resume is False
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    assert composed("train", []).resume is False
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert composed("train", []).resume is True
    assert composed("train", ["resume=false"]).resume is False


@pytest.mark.parametrize("jobs", [("seed=1",), ("seed=1,2",)])
def test_every_job_of_a_multirun_has_a_numbered_folder(jobs, tmp_path):
    outcome = run_command(*("training.num_rollouts=1", *jobs, f"run_dir={tmp_path}"), multirun=True)
    assert outcome.code == 0
    folders = [str(number) for number in range(len(jobs[0].split(",")))]
    assert [path.name for path in sorted(tmp_path.glob("[0-9]*"))] == folders
    assert {result(tmp_path / name)["status"] for name in folders} == {"finished"}


def test_jobs_in_other_processes_share_the_folder_named_after_the_start():
    """A launcher's process imports everything later; Hydra's singletons are what it brings."""
    import cloudpickle
    from hydra.core.singleton import Singleton

    from papo.commands import resolvers

    here = resolvers.start_time("%Y-%m-%d_%H-%M-%S")
    state = cloudpickle.dumps(Singleton.get_state())
    script = (
        "import pickle, sys, time\n"
        "from papo.commands import resolvers\n"
        "from hydra.core.singleton import Singleton\n"
        "resolvers.CommandStart().seconds += 1000\n"
        "Singleton.set_state(pickle.loads(sys.stdin.buffer.read()))\n"
        "print(resolvers.start_time('%Y-%m-%d_%H-%M-%S'))\n"
    )
    there = subprocess.run(
        [sys.executable, "-c", script], input=state, capture_output=True, check=True, cwd=REPOSITORY
    )
    assert there.stdout.decode().strip() == here


def test_a_launcher_takes_the_task_to_its_processes_by_name():
    import pickle

    from papo.commands import train

    # By value it would be all that the function refers to, of which some cannot be pickled.
    assert pickle.dumps(train.main.__wrapped__) == pickle.dumps(train.task)
    assert len(pickle.dumps(train.task)) < 100


@pytest.fixture
def theirs():
    """A launcher's handler of SIGUSR2; what it was called with."""
    heard = []
    before = signal.signal(signal.SIGUSR2, lambda *arguments: heard.append(arguments))
    yield heard
    signal.signal(signal.SIGUSR2, before)


def test_a_warning_that_a_launcher_handles_waits_for_the_files_and_is_handed_over(theirs):
    from papo.machine.signals import Interrupted, hand_over, interruptible, postponed_until_saved

    done = []

    def work():
        with interruptible(), postponed_until_saved():
            os.kill(os.getpid(), signal.SIGUSR2)
            done.append("the rollout")
            assert theirs == []

    with pytest.raises(Interrupted) as stop:
        work()
    assert done == ["the rollout"]
    assert theirs == []
    assert hand_over(stop.value.signal)
    assert theirs == [(signal.SIGUSR2, None)]


def test_nothing_is_handed_over_where_nobody_handled_it():
    from papo.machine.signals import hand_over, interruptible

    for handler in (signal.SIG_DFL, signal.SIG_IGN):
        before = signal.signal(signal.SIGUSR2, handler)
        try:
            assert not hand_over(signal.SIGUSR2)
            with interruptible():
                # The inner of two finds the outer's.
                assert not hand_over(signal.SIGUSR2)
        finally:
            signal.signal(signal.SIGUSR2, before)


def test_an_ignored_warning_stays_ignored():
    from papo.machine.signals import interruptible

    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_run_is_saved_before_its_launcher_hears_of_the_warning(tmp_path, monkeypatch):
    from training.command import sent_on_call

    from papo.training import collect

    found = []

    def requeue(number, frame):
        """As submitit: it requeues the job, and exits."""
        found.append(sorted(path.name for path in (tmp_path / "checkpoints").iterdir()))
        raise SystemExit(255)

    before = signal.signal(signal.SIGUSR2, requeue)
    try:
        sent_on_call(monkeypatch, collect, "group_advantages", signal.SIGUSR2, call=1)
        rare = ("training.num_rollouts=3", "callbacks.checkpoint.every_rollouts=100")
        outcome = run_command(*rare, f"run_dir={tmp_path}", launched=True)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert outcome.code == 255
    assert found == [["rollout_000001.ckpt"]]
    assert result(tmp_path)["status"] == "interrupted"
    assert "is saved up to rollout_000001" in outcome.stderr


def test_a_command_whose_processes_were_warned_hands_over_and_says_nothing_more(
    tmp_path, monkeypatch
):
    from papo.commands import on_ranks

    def requeue(number, frame):
        raise SystemExit(255)

    # They were warned themselves, and have said so.
    monkeypatch.setattr(on_ranks, "launch", lambda *_, **__: 128 + signal.SIGUSR2)
    before = signal.signal(signal.SIGUSR2, requeue)
    try:
        outcome = run_command(f"run_dir={tmp_path}", "trainer.devices=2", launched=True)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert outcome.code == 255
    assert outcome.stderr == ""


def test_tasks_of_submitit_on_one_machine_meet_where_their_job_says():
    from papo.parallel import world_of
    from papo.parallel.join import _fill_in_addresses

    names = {"NTASKS": "2", "GLOBALID": "1", "LOCALID": "1", "JOB_ID": "23456"}
    variables = {f"SUBMITIT_LOCAL_{name}": value for name, value in names.items()}
    world = world_of(variables)
    assert (world.launcher, world.size, world.rank, world.local_rank) == ("submitit", 2, 1, 1)
    _fill_in_addresses(variables, world)
    assert (variables["MASTER_ADDR"], variables["MASTER_PORT"]) == ("127.0.0.1", "18456")
    assert world_of({**variables, "SUBMITIT_LOCAL_NTASKS": "1"}) is None


def test_tasks_that_slurm_places_as_it_likes_are_refused(monkeypatch):
    from papo.parallel import world_of
    from papo.parallel.join import _fill_in_addresses

    for name, value in {"NTASKS": "2", "PROCID": "0", "LOCALID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    with pytest.raises(ValueError, match=r"--ntasks-per-node=2"):
        _fill_in_addresses(dict(os.environ), world_of(os.environ))


def started(python, *words, variables):
    """A command of its own, and not part of the test's process group."""
    return subprocess.Popen(
        [python, *words],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def rows(run_dir):
    text = (run_dir / "metrics.csv").read_text().splitlines()
    return text[0], np.array([[float(cell) for cell in line.split(",")] for line in text[1:]])


def until(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


RUN = (*SHORT, "training.num_rollouts=8", "callbacks.checkpoint.every_rollouts=100")
TWO_TASKS = ("trainer=replicas", "trainer.accelerator=cpu", "trainer.precision=32-true")


@pytest.mark.dist
@pytest.mark.slow
def test_a_job_of_two_tasks_that_is_warned_is_requeued_once_saved_and_gives_the_run_of_one(
    tmp_path, forked_python
):
    slurm = tmp_path / "slurm"
    variables = fake_slurm.install(slurm)
    process = started(
        forked_python,
        *("train.py", "-m", "hydra/launcher=cluster", *RUN, *TWO_TASKS, f"run_dir={tmp_path}/run"),
        variables=variables,
    )
    run = tmp_path / "run" / "0"
    table = run / "metrics.csv"
    until(lambda: table.exists() and table.read_text().count("\n") > 2, process)
    for task in (slurm / "tasks").read_text().split():
        os.kill(int(task), signal.SIGUSR2)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert (slurm / "requeued").read_text() == f"{fake_slurm.JOB}\n"
    assert result(run)["status"] == "finished"
    # The task that requeued the job ended its step, and not one that was done before.
    exits = [line.split() for line in (slurm / "exits").read_text().splitlines()]
    assert ["0", "255"] in exits
    assert next(task for task, code in exits if code != "0") == "0"
    # Nothing was done twice: the warning was answered with a checkpoint, and the other rank waited for it.
    assert len(json.loads((run / "run.json").read_text())["starts"]) == 2
    assert not list(run.glob("metrics.csv.cut-*"))
    assert run_command(*RUN, f"run_dir={tmp_path}/alone", short=False).code == 0
    names, mine = rows(run)
    expected_names, expected = rows(tmp_path / "alone")
    assert names == expected_names
    np.testing.assert_allclose(mine, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.dist
@pytest.mark.slow
def test_the_command_fails_where_any_task_of_its_job_does(tmp_path):
    """The launcher looks at the first task alone, which hears of it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "task = os.environ.get('SUBMITIT_LOCAL_GLOBALID')\n"
        "os.environ['AVERAGE'] = 'median' if task == '1' else 'sequence'\n"
    )
    process = started(
        sys.executable,
        *("train.py", "-m", "hydra/launcher=submitit_local", "hydra.launcher.tasks_per_node=2"),
        *(*SHORT, *TWO_TASKS, f"run_dir={tmp_path}/run", "objective.average=${oc.env:AVERAGE}"),
        variables={"PYTHONPATH": f"{tmp_path}:{REPOSITORY}"},
    )
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    assert "rank 1: ValueError" in output
    assert "median" in output
