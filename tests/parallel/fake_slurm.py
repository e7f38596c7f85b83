"""The commands of a scheduler that has this machine alone: sbatch, srun, scontrol requeue and sacct.

`python fake_slurm.py COMMAND ARGUMENTS`; state is in the folder of the variable FAKE_SLURM. Requeues as SLURM
does, with SLURM_RESTART_COUNT, and ends a step where a task fails and SLURM_KILL_BAD_EXIT says so.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = ("sbatch", "srun", "scontrol", "sacct")
JOB = "1234"
APPENDING = os.O_WRONLY | os.O_CREAT | os.O_APPEND


def install(folder):
    """Writes the commands into a folder for PATH; returns the variables of a login node."""
    folder.mkdir(parents=True)
    for name in COMMANDS:
        text = f'#!/bin/bash\nexec "{sys.executable}" -S -E "{__file__}" {name} "$@"\n'
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return {"FAKE_SLURM": str(folder), "PATH": f"{folder}:{os.environ['PATH']}"}


def state():
    return Path(os.environ["FAKE_SLURM"])


def sbatch(script):
    (state() / "job.sh").write_text(Path(script).read_text("utf-8"))
    print(f"Submitted batch job {JOB}", flush=True)
    if os.fork():
        return
    os.setsid()
    log = os.open(state() / "log", APPENDING)
    os.dup2(log, 1)
    os.dup2(log, 2)
    tasks = re.search(r"--ntasks-per-node=(\d+)", Path(script).read_text("utf-8"))[1]
    variables = {
        **{"SLURM_JOB_ID": JOB, "SLURM_JOB_NAME": "papo", "SLURM_JOB_NUM_NODES": "1"},
        **{"SLURM_NTASKS": tasks, "SLURM_NTASKS_PER_NODE": tasks, "SLURM_NODELIST": "localhost"},
    }
    restarts = 0
    while True:
        again = {"SLURM_RESTART_COUNT": str(restarts)} if restarts else {}
        subprocess.run(["bash", state() / "job.sh"], env={**os.environ, **variables, **again})
        if not requeues() > restarts:
            break
        restarts += 1
    (state() / "ended").touch()


def requeues():
    file = state() / "requeued"
    return len(file.read_text("utf-8").splitlines()) if file.exists() else 0


def srun(*arguments):
    words = list(arguments)
    outputs = {}
    while words[0].startswith("--"):
        name = words.pop(0)
        if name in ("--output", "--error"):
            outputs[name] = words.pop(0)
    processes = []
    for task in range(int(os.environ["SLURM_NTASKS"])):
        # They stay open until this process ends.
        files = {
            name: os.open(path.replace("%j", JOB).replace("%t", str(task)), APPENDING)
            for name, path in outputs.items()
        }
        variables = {
            **{"SLURM_PROCID": str(task), "SLURM_LOCALID": str(task), "SLURM_NODEID": "0"},
            **{"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": os.environ["SLURM_NTASKS"]},
        }
        processes.append(
            subprocess.Popen(
                words,
                env={**os.environ, **variables},
                stdout=files.get("--output"),
                stderr=files.get("--error"),
            )
        )
    (state() / "tasks").write_text(" ".join(str(process.pid) for process in processes))
    raise SystemExit(wait(processes))


def wait(processes):
    """The first exit code of a step that is not 0; the file `exits` has tasks and codes in their order."""
    running, worst = dict(enumerate(processes)), 0
    while running:
        for task, process in list(running.items()):
            if process.poll() is None:
                continue
            del running[task]
            with open(state() / "exits", "a", encoding="utf-8") as file:
                file.write(f"{task} {process.returncode}\n")
            if process.returncode and not worst:
                worst = abs(process.returncode)
                if os.environ.get("SLURM_KILL_BAD_EXIT") == "1":
                    for other in running.values():
                        other.send_signal(signal.SIGKILL)
        time.sleep(0.02)
    return worst


def scontrol(verb, job):
    assert verb == "requeue"
    # The controller of a cluster is not as quick as a task that ends.
    time.sleep(1)
    with open(state() / "requeued", "a", encoding="utf-8") as file:
        file.write(f"{job}\n")


def sacct(*arguments):
    over = (state() / "ended").exists()
    print(f"JobID|State|NodeList\n{JOB}|{'FAILED' if over else 'RUNNING'}|localhost")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
