"""A process that is one of several refuses; a shell, a job and a step of one task are one process."""

import re
import sys

import pytest
from command import contents, run_command

from papo.processes import require_one_process

SEVERAL = {
    "torchrun": {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"},
    "torchrun on two machines": {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"},
    "srun": {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"},
    "a scheduler that knows no steps": {"SLURM_NTASKS": "4", "SLURM_PROCID": "3"},
    "Open MPI": {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"},
    "MPI": {"PMI_SIZE": "3", "PMI_RANK": "2"},
    "torchrun in a job of one task": {
        **{"SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
        **{"WORLD_SIZE": "2", "RANK": "0"},
    },
}
ONE = {
    "nothing": {},
    "torchrun of one": {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"},
    "a job of one task": {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
    "a shell of salloc": {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8"},
    "a step of one task in a job of eight": {
        "SLURM_NTASKS": "8",
        "SLURM_STEP_NUM_TASKS": "1",
        "SLURM_PROCID": "0",
    },
    "a size without a rank": {"WORLD_SIZE": "8"},
}


@pytest.mark.parametrize("launcher", SEVERAL)
def test_one_of_several_processes_refuses_and_names_its_variable(launcher):
    variables = SEVERAL[launcher]
    with pytest.raises(ValueError, match=r"one process of [234]") as refusal:
        require_one_process({"PATH": "/bin", **variables})
    assert any(f"{name}={value}" in str(refusal.value) for name, value in variables.items())


@pytest.mark.parametrize("launcher", ONE)
def test_one_process_goes_on(launcher):
    require_one_process({"PATH": "/bin", **ONE[launcher]})


@pytest.fixture
def two_processes(monkeypatch):
    for name, value in SEVERAL["torchrun"].items():
        monkeypatch.setenv(name, value)


def test_a_run_of_several_processes_is_refused_before_anything_is_written(tmp_path, two_processes):
    outcome = run_command(f"run_dir={tmp_path}")
    assert outcome.code == 1
    assert "WORLD_SIZE=2" in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("name", ["train", "evaluate", "analyze"])
def test_every_front_door_refuses_before_hydra_makes_a_folder(
    name, tmp_path, two_processes, monkeypatch, capsys
):
    import importlib

    import front_door

    door = importlib.import_module(name)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", f"run_dir={tmp_path / 'run'}"])
    assert front_door.command(door.main) == 1
    assert re.match("error: this is one process of 2 ", capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_lightning_takes_no_part_in_a_job_of_slurm(tmp_path, monkeypatch):
    """It would handle the signals itself, and requeue a job of its own accord."""
    from functools import partial

    from lightning.pytorch import Trainer
    from lightning.pytorch.plugins.environments import SLURMEnvironment

    from papo.training import build_trainer

    for name, value in {"NTASKS": "1", "PROCID": "0", "JOB_ID": "7", "JOB_NAME": "papo"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    make_trainer = partial(Trainer, accelerator="cpu", devices=1)
    trainer = build_trainer(make_trainer, folder=tmp_path, callbacks=[], loggers=[])
    environment = trainer._accelerator_connector.cluster_environment
    assert not isinstance(environment, SLURMEnvironment)
