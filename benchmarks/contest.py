"""Whole training steps of several trainers, each in a process of its own, taking turns."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measure import OUTPUT, REPOSITORY, take_turns
from benchmarks.models import (
    build_model,
    build_word_tokenizer,
    policy_of,
    problems,
    save,
    step_config,
)

NUM_PROMPTS = 4
NUM_RESPONSES = 8
PROMPT_TOKENS = 167
GRID = (16, 32)
"""Patches of the picture: 128 image tokens."""

MODEL_FOLDER = OUTPUT / "step_model"

PEER_VERSIONS = {"papo": "1.7.1", "grpo": "1.16.0"}
"""TRL releases: the last one with a PAPOTrainer, and the current one."""


class PeerMissing(RuntimeError):
    """The environment of a peer does not exist or does not work."""


class Contestant:
    """The outside of a process behind a Turnstile."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name = name
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        # One thread each; offline, because nothing here may depend on a network.
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "TRL_EXPERIMENTAL_SILENCE": "1",
            "PYTHONPATH": str(REPOSITORY),
        }
        with log.open("w", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=REPOSITORY,
                env=environment,
                text=True,
            )
        self.hello = self._answer()

    def step(self) -> float:
        """CPU seconds of one training step."""
        assert self._process.stdin is not None
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        return float(self._answer()["seconds"])

    def stop(self) -> None:
        """Ends the process, which waits for a further step; harmless when it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.stop()
            lines = self._log.read_text("utf-8").strip().splitlines() or ["without a word"]
            raise PeerMissing(f"{self.name} stopped: {lines[-1]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def contestants(commands: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Contestant]]:
    """Starts each process, waits until it is ready, and ends them all."""
    running: dict[str, Contestant] = {}
    try:
        for name, command in commands.items():
            running[name] = Contestant(name, command, OUTPUT / "logs" / f"{name}.txt")
        yield running
    finally:
        for contestant in running.values():
            contestant.stop()


def step_seconds(
    commands: Mapping[str, Sequence[str]], repetitions: int
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds per step of each contestant, and what each said of itself (its versions).

    Raises:
        PeerMissing: a contestant could not start or died.
    """
    prepare(MODEL_FOLDER)
    with contestants(commands) as running:
        seconds = take_turns(
            {name: contestant.step for name, contestant in running.items()},
            repetitions=repetitions,
            warm_ups=1,
        )
        return seconds, {name: contestant.hello for name, contestant in running.items()}


def prepare(folder: Path) -> None:
    """Writes what every contestant reads: the model, its tokenizer, pictures and questions."""
    tokenizer = build_word_tokenizer()
    model = build_model(step_config(tokenizer), tokenizer)
    save(folder, model, tokenizer)
    policy = policy_of(model, tokenizer, scoring="padded")
    drawn = problems(policy, grid=GRID, prompt_tokens=PROMPT_TOKENS, count=4 * NUM_PROMPTS)
    for index, problem in enumerate(drawn):
        problem.images[0].save(folder / f"picture_{index}.png")
    questions = [problem.question.removeprefix("<image> ") for problem in drawn]
    (folder / "questions.txt").write_text("\n".join(questions) + "\n", "utf-8")


def own_command(variant: str, response_tokens: int) -> list[str]:
    return [
        *(sys.executable, "-m", "benchmarks.own_step", "--variant", variant),
        *("--response-tokens", str(response_tokens)),
    ]


def peer_command(trainer: str, response_tokens: int) -> list[str]:
    """How to start TRL's trainer.

    Raises:
        PeerMissing: its environment was never made.
    """
    environment = OUTPUT / f"venv-trl-{PEER_VERSIONS[trainer]}"
    if not (environment / ".installed").exists():
        raise PeerMissing(
            f"no environment with trl {PEER_VERSIONS[trainer]}; `make peers` makes it, with a network"
        )
    return [
        *(
            str(environment / "bin" / "python"),
            str(REPOSITORY / "benchmarks" / "peers" / "trl_step.py"),
        ),
        *("--trainer", trainer, "--response-tokens", str(response_tokens)),
        *("--model", str(MODEL_FOLDER), "--num-prompts", str(NUM_PROMPTS)),
        *("--num-responses", str(NUM_RESPONSES)),
    ]
