"""Commands start, and the lab trains, where Windows' gaps are: simulated, as there is no Windows here."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from training.command import SHORT

from papo.rewards import grading_pool

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_lab_trains_without_what_windows_does_not_have(tmp_path):
    script = Path(__file__).with_name("without_posix.py")
    done = subprocess.run(
        [sys.executable, str(script), *SHORT, f"run_dir={tmp_path / 'run'}"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "finished"
    assert "has no locks" in done.stderr


def test_an_answer_that_needs_a_grading_process_says_what_to_use(monkeypatch):
    # pytest's own deadline needs it again.
    with monkeypatch.context() as patch:
        patch.delattr(signal, "setitimer")
        with pytest.raises(ValueError, match="WSL"):
            grading_pool._start_worker(1.0)
