import sys

import pytest

from benchmarks import contest
from benchmarks.contest import Contestant, PeerMissing, peer_command, prepare
from benchmarks.papo_step import measure as measure_papo_step

STEPPER = """
from benchmarks.turnstile import Turnstile
import time
turnstile = Turnstile()
print("chatter on stdout", flush=True)
turnstile.say(versions={"stepper": "1"})
while True:
    turnstile.wait()
    time.sleep(0.05)
    sum(range(10**5))
    turnstile.finish()
"""


def test_a_contestant_steps_when_told_and_reports_its_own_cpu_seconds(tmp_path):
    contestant = Contestant("stepper", [sys.executable, "-c", STEPPER], tmp_path / "log.txt")
    assert contestant.hello == {"versions": {"stepper": "1"}}
    seconds = [contestant.step() for _ in range(3)]
    contestant.stop()
    assert all(0 < each < 0.05 for each in seconds)  # sleeping does not count
    assert "chatter on stdout" in (tmp_path / "log.txt").read_text()


def test_a_contestant_that_dies_says_its_last_words(tmp_path):
    with pytest.raises(PeerMissing, match=r"broken stopped: .*no such trainer"):
        Contestant(
            "broken", [sys.executable, "-c", "raise SystemExit('no such trainer')"], tmp_path / "l"
        )


def test_a_peer_without_environment_gives_rows_that_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(contest, "OUTPUT", tmp_path)
    with pytest.raises(PeerMissing, match=r"no environment with trl 1\.7\.1; `make peers`"):
        peer_command("papo", 64)
    rows = measure_papo_step(1)
    assert [row.verdict for row in rows] == ["not measured"] * 4
    assert all("make peers" in row.note for row in rows)
    assert {row.value for row in rows} == {None}


def test_everything_a_peer_reads_is_written(tmp_path):
    prepare(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"model.safetensors", "tokenizer.json", "preprocessor_config.json"} <= names
    questions = (tmp_path / "questions.txt").read_text().splitlines()
    assert len(questions) == 16
    assert {f"picture_{index}.png" for index in range(16)} <= names
