"""A process that is one of several refuses; a shell, a job and a step of one task are one process."""

import os
import re
import socket
import sys

import pytest
import torch

from papo.parallel import Ranks, check_processes, require_one_process

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


@pytest.mark.parametrize("devices", [1, 4])
def test_other_processes_than_were_started_are_refused_with_what_to_set(devices):
    with pytest.raises(ValueError, match=r"trainer=replicas trainer\.devices=2") as refusal:
        check_processes(
            devices=devices,
            num_nodes=1,
            section="trainer.",
            group="trainer=replicas",
            script="train.py",
            ranks=Ranks(rank=1, size=2),
        )
    assert "2 processes were started" in str(refusal.value)


def test_a_run_is_not_started_by_mpi(tmp_path, monkeypatch, capsys):
    from papo.commands import front_door, train

    for name, value in SEVERAL["Open MPI"].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["train.py", f"run_dir={tmp_path / 'run'}"])
    assert front_door.command(train.main, on_ranks=True) == 1
    assert "torchrun or srun; got Open MPI (OMPI_COMM_WORLD_SIZE=2" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_process_without_the_others_says_who_is_missing(monkeypatch):
    from papo.parallel import join as joining
    from papo.parallel import joined, world_of

    monkeypatch.setattr(joining, "JOIN_SECONDS", 1)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    for name, value in {
        **SEVERAL["torchrun"],
        **{"RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
    }.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(ValueError, match="announced 2 processes, and after 1 s rank 1 is not here"),
        joined(world_of(os.environ)),
    ):
        pass


def test_a_port_in_use_is_named(monkeypatch):
    from papo.parallel import joined, world_of

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for name, value in {
            **SEVERAL["torchrun"],
            **{"RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
        }.items():
            monkeypatch.setenv(name, value)
        with (
            pytest.raises(ValueError, match=f"MASTER_PORT=127.0.0.1:{port}.* Set MASTER_PORT"),
            joined(world_of(os.environ)),
        ):
            pass


@pytest.mark.parametrize("name", ["evaluate", "analyze"])
def test_what_works_in_one_process_refuses_before_hydra_makes_a_folder(
    name, tmp_path, two_processes, monkeypatch, capsys
):
    import importlib

    from papo.commands import front_door

    door = importlib.import_module(f"papo.commands.{name}")
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
    trainer = build_trainer(
        make_trainer,
        folder=tmp_path,
        callbacks=[],
        loggers=[],
        ranks=Ranks(),
        device=torch.device("cpu"),
    )
    environment = trainer._accelerator_connector.cluster_environment
    assert not isinstance(environment, SLURMEnvironment)
