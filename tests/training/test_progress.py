"""What a run shows of its progress: whole on a narrow terminal, and with the time left without one."""

import io
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

METRICS = {"reward/mean": 0.64812, "loss/perception_kl": 0.14412}
SECONDS = {"rollout": 0.77, "reward": 0.0, "score": 0.2, "update": 1.0, "validation": 12.0}


@pytest.fixture
def shown(monkeypatch):
    """Returns what is printed of rollouts 10 and 11 of so many, ten seconds each, after nine of another process."""
    from papo.training.callbacks import progress

    def printed(*, width, terminal, total=2020, metrics=METRICS):
        times = iter((0.0, 10.0, 20.0))
        monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(times)))
        out = io.StringIO()
        console = Console(file=out, width=width, force_terminal=terminal)
        line = progress.RunProgress(console, done=9, total=total, every=1)
        for done in (10, 11):
            line.show(done, metrics, SECONDS)
        line.stop()
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue()).replace("\r", "\n")

    return printed


@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_live_line_is_whole_on_a_terminal(shown, width):
    last = [line for line in shown(width=width, terminal=True).splitlines() if line.strip()][-1]
    assert len(last.rstrip()) <= width
    for part in (
        "rollout",
        "11/2020",
        "━━━━",
        "5:34:50 left",
        "reward 0.648",
        "perception KL 0.144",
    ):
        assert part in last


def test_without_a_terminal_every_line_has_the_time_left_and_the_phases(shown):
    first, second = shown(width=80, terminal=False).splitlines()
    assert first.startswith("rollout 10/2020  5:35:00 left  reward 0.648  perception KL 0.144  |  ")
    assert "5:34:50 left" in second
    # A reward is a number; what takes time is the grading.
    assert second.endswith(
        "sampling 0.77 s  grading 0.00 s  scoring 0.20 s  update 1.00 s  validation 12.00 s"
    )


def test_a_run_without_a_masked_view_shows_its_reward_alone(shown):
    line = shown(width=80, terminal=False, metrics={"reward/mean": 0.5}).splitlines()[0]
    assert "reward 0.500  |" in line
